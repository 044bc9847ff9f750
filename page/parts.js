// Parts that several diagrams use: maps of numbers, bars, choices; strips are in strips.js. Each works with the pointer and the
// keyboard.

var GPT = GPT || {};
(() => {
  "use strict";
  const { html, paint, largest, percent } = GPT.draw;

  /** One vector as a map of small squares, row by row; the pointer and the arrow keys choose a number. */
  function map(name, onmove) {
    const columns = 32;
    const canvas = html("canvas", { class: "map", "aria-hidden": "true" });
    const mark = html("div", { class: "map-cell" });
    const output = html("p", { class: "readout" });
    const slider = html(
      "div",
      { class: "map-box", role: "slider", tabindex: 0, "aria-label": name, "aria-valuemin": 1 },
      canvas,
      mark,
    );
    let [values, at, describe] = [[], 0, () => ""];
    const lines = () => Math.ceil(values.length / columns);

    function move(to) {
      at = Math.max(0, Math.min(values.length - 1, to));
      Object.assign(mark.style, {
        left: `${(100 * (at % columns)) / columns}%`,
        width: `${100 / columns}%`,
        top: `${(100 * Math.floor(at / columns)) / lines()}%`,
        height: `${100 / lines()}%`,
      });
      output.textContent = describe(at);
      slider.setAttribute("aria-valuenow", at + 1);
      slider.setAttribute("aria-valuetext", output.textContent);
    }
    const choose = (to) => {
      move(to);
      onmove(at);
    };

    function point({ clientX, clientY }) {
      const box = canvas.getBoundingClientRect();
      const [x, y] = [(clientX - box.left) / box.width, (clientY - box.top) / box.height];
      const to = Math.floor(y * lines()) * columns + Math.floor(x * columns);
      if (x >= 0 && x < 1 && y >= 0 && to < values.length && to !== at) choose(to);
    }
    slider.addEventListener("pointermove", point);
    slider.addEventListener("pointerdown", point);
    slider.addEventListener("keydown", (event) => {
      const to = {
        ArrowLeft: at - 1,
        ArrowRight: at + 1,
        ArrowUp: at - columns,
        ArrowDown: at + columns,
        Home: 0,
        End: values.length - 1,
      }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      choose(to);
    });
    function show(given, chosen, inWords) {
      [values, describe] = [given, inWords];
      paint(canvas, values, columns, largest(values));
      canvas.style.aspectRatio = `${columns} / ${lines()}`;
      slider.setAttribute("aria-valuemax", values.length);
      move(chosen);
    }
    return { element: html("div", {}, slider, output), show };
  }

  /** Fractions as bars: show([{ label, fraction, text, behind?, isMarked?, onclick?, title?, colour? }]); behind: a pale
   *  longer bar; colour: query, key, value or stream. A fraction of null draws no bar. With a second argument, { most, text },
   *  a scale below the bars says that the full width stands for `most`; text(value) writes a number of the scale. */
  function bars(name) {
    const element = html("ol", { class: "bars", "aria-label": name });
    const ruler = ({ most, text }) =>
      html(
        "li",
        { class: "bars-ruler", "aria-hidden": "true" },
        html(
          "div",
          {},
          html("span", {}),
          html(
            "span",
            { class: "bars-ticks" },
            GPT.charts
              .ticks(0, most, 4)
              .map((at) => html("span", { style: `left: ${((100 * at) / most).toFixed(2)}%` }, text(at))),
          ),
          html("span", {}),
        ),
      );
    function show(items, scale) {
      const focused = Array.from(element.children).findIndex((line) => line.contains(document.activeElement));
      element.replaceChildren(
        ...items.map(({ label, fraction, text, behind, isMarked, onclick, title, colour }) => {
          const inside = [
            html("span", { class: "bars-label" }, label),
            html(
              "span",
              { class: "bars-track", "aria-hidden": "true" },
              behind && html("span", { class: "bars-behind", style: `width: ${100 * behind}%` }),
              fraction !== null &&
                html("span", { class: "bars-bar", style: `width: ${Math.max(0, Math.min(100, 100 * fraction))}%` }),
            ),
            html("span", { class: "bars-value" }, text),
          ];
          const line = onclick
            ? html("button", { type: "button", onclick, title }, inside)
            : html("div", { title }, inside);
          return html("li", { class: isMarked && "is-marked", style: colour && `--bar: var(--${colour})` }, line);
        }),
        ...(scale && scale.most > 0 ? [ruler(scale)] : []),
      );
      if (focused >= 0) focusNear(element, focused);
    }
    return { element, show };
  }

  /** Focuses the button at a place of a list, or the one nearest to it; without any, the list, so that Tab continues from there. */
  function focusNear(list, place) {
    const lines = Array.from(list.children);
    const far = (button) => Math.abs(lines.findIndex((line) => line.contains(button)) - place);
    const [nearest] = Array.from(list.querySelectorAll("button")).sort((one, other) => far(one) - far(other));
    if (!nearest) list.tabIndex = -1;
    (nearest || list).focus({ preventScroll: true });
  }

  /** Switches a button on or off. A disabled button would lose the focus, so it is only marked, and its clicks are stopped. */
  const enable = (button, isOn) => button.setAttribute("aria-disabled", String(!isOn));
  function stopOff(event) {
    if (event.target.closest?.("button[aria-disabled='true']")) event.stopImmediatePropagation();
  }
  addEventListener("click", stopOff, { capture: true });

  /** The legend of a row of attention weights: four shades and their numbers. show(name, most): most, the row's largest. */
  function shadeScale() {
    const element = html("p", { class: "scale" });
    function show(name, most) {
      const steps = [0, 1 / 3, 2 / 3, 1];
      element.replaceChildren(
        html("span", {}, name),
        ...steps.map((step) =>
          html("span", {}, html("i", { style: `--strength: ${Math.round(100 * step)}%` }), percent(most * step ** 2)),
        ),
      );
    }
    return { element, show };
  }

  let names = 0;

  /** Radio buttons: choice("Layer", ["1", "2"], (index) => ...); show(index) selects one. */
  function choice(name, options, onchange) {
    const group = `choice-${(names += 1)}`;
    const inputs = options.map((option, index) =>
      html("input", { type: "radio", name: group, value: index, onchange: () => onchange(index) }),
    );
    const labels = inputs.map((input, index) => html("label", {}, input, html("span", {}, options[index])));
    const element = html("fieldset", { class: "choice" }, html("legend", {}, name), html("div", {}, labels));
    return {
      element,
      show: (index) =>
        inputs.forEach((input, i) => {
          input.checked = i === index;
        }),
    };
  }

  /** The choice of the layer that the whole page shows; show(state) updates it. */
  function layerChoice(model) {
    const options = model.layers.map((_, layer) => `${layer + 1}`);
    const { element, show } = choice("Layer", options, (layer) => GPT.app.set({ layer, key: null }));
    return { element, show: (state) => show(state.layer) };
  }

  /** The choice of the head that the whole page shows. */
  function headChoice(model) {
    const options = Array.from({ length: model.config.num_heads }, (_, head) => `${head + 1}`);
    const { element, show } = choice("Head", options, (head) => GPT.app.set({ head, key: null }));
    return { element, show: (state) => show(state.head) };
  }

  /** Makes `items` one stop of the Tab key, with arrow keys to move inside: roving(container, () => items, (index) => ...). */
  function roving(container, items, onmove) {
    container.addEventListener("keydown", (event) => {
      const all = items();
      const at = all.indexOf(document.activeElement);
      const to = {
        ArrowLeft: at - 1,
        ArrowUp: at - 1,
        ArrowRight: at + 1,
        ArrowDown: at + 1,
        Home: 0,
        End: all.length - 1,
      }[event.key];
      if (at < 0 || to === undefined) return;
      event.preventDefault();
      const index = Math.max(0, Math.min(all.length - 1, to));
      all.forEach((item, i) => item.setAttribute("tabindex", i === index ? 0 : -1));
      all[index].focus({ preventScroll: false });
      onmove(index);
    });
  }

  GPT.parts = { enable, map, bars, shadeScale, choice, layerChoice, headChoice, roving };
})();
