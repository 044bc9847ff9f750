// Parts that several diagrams use: strips of numbers, bars, choices. Each works with the pointer and the keyboard.

var GPT = GPT || {};
(() => {
  "use strict";
  const { html, paint, palette, largest } = GPT.draw;

  /** Vectors as strips of colour, one below the other, with one cursor over all of them. The reader moves it with the
   *  pointer or the arrow keys. show(rows, describe): rows [{ label, values, most?, colour? }] of equal length;
   *  describe(column) gives the values of a column in words. `most` is the end of the colour scale; without it, all rows use
   *  the same scale. `colour` (query, key, value, stream) is that of numbers above 0. */
  function strips(name, colour = "accent") {
    const table = html("div", { class: "strips-rows" });
    const output = html("p", { class: "readout" });
    const slider = html("div", { class: "strips", role: "slider", tabindex: 0, "aria-label": name }, table);
    let [rows, columns, column, describe] = [[], 1, 0, () => ""];

    function move(to) {
      column = Math.max(0, Math.min(columns - 1, to));
      for (const cursor of table.querySelectorAll(".strips-cursor")) {
        Object.assign(cursor.style, { left: `${(100 * column) / columns}%`, width: `max(3px, ${100 / columns}%)` });
      }
      output.replaceChildren(...[describe(column)].flat());
      slider.setAttribute("aria-valuemin", 1);
      slider.setAttribute("aria-valuemax", columns);
      slider.setAttribute("aria-valuenow", column + 1);
      slider.setAttribute("aria-valuetext", output.textContent);
    }

    function point({ clientX }) {
      const box = table.querySelector("canvas").getBoundingClientRect();
      const to = Math.floor(((clientX - box.left) / box.width) * columns);
      if (to >= 0 && to < columns && to !== column) move(to);
    }
    slider.addEventListener("pointermove", point);
    slider.addEventListener("pointerdown", point);
    slider.addEventListener("keydown", (event) => {
      const to = {
        ArrowLeft: column - 1,
        ArrowDown: column - 1,
        ArrowRight: column + 1,
        ArrowUp: column + 1,
        PageDown: column - 10,
        PageUp: column + 10,
        Home: 0,
        End: columns - 1,
      }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      move(to);
    });
    function show(given, inWords) {
      [rows, columns, describe] = [given, given[0].values.length, inWords];
      const common = largest(...given.map(({ values }) => values));
      const style = (row) => row.colour && `color: var(--${row.colour})`;
      table.replaceChildren(
        ...rows.flatMap((row) => {
          const { label, values, most } = row;
          const canvas = html("canvas", { "aria-hidden": "true" });
          paint(canvas, values, columns, most || common, palette(row.colour || colour));
          return [
            html("span", { class: "strips-label", style: style(row) }, label),
            html("div", { class: "strips-strip" }, canvas, html("div", { class: "strips-cursor" })),
          ];
        }),
      );
      move(column);
    }
    return { element: html("div", { class: "strips-box" }, slider, output), show };
  }

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
   *  longer bar; colour: query, key, value or stream. */
  function bars(name) {
    const element = html("ol", { class: "bars", "aria-label": name });
    function show(items) {
      const focused = Array.from(element.children).findIndex((line) => line.contains(document.activeElement));
      element.replaceChildren(
        ...items.map(({ label, fraction, text, behind, isMarked, onclick, title, colour }) => {
          const inside = [
            html("span", { class: "bars-label" }, label),
            html(
              "span",
              { class: "bars-track", "aria-hidden": "true" },
              behind && html("span", { class: "bars-behind", style: `width: ${100 * behind}%` }),
              html("span", { class: "bars-bar", style: `width: ${Math.max(0, Math.min(100, 100 * fraction))}%` }),
            ),
            html("span", { class: "bars-value" }, text),
          ];
          const line = onclick
            ? html("button", { type: "button", onclick, title }, inside)
            : html("div", { title }, inside);
          return html("li", { class: isMarked && "is-marked", style: colour && `--bar: var(--${colour})` }, line);
        }),
      );
      if (focused >= 0) element.children[focused]?.firstChild.focus({ preventScroll: true });
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

  GPT.parts = { strips, map, bars, choice, layerChoice, headChoice, roving };
})();
