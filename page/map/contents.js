// The contents as a small map of the same model: beside the chapters that explain a part of it stands this part, with the
// numbers of the chosen token, layer and head. In a narrow window a button opens it.

(() => {
  "use strict";
  const { html, svg, best, largest, length, paint, palette, row, visible } = GPT.draw;
  const [W, H] = [52, 30]; // of a part, in pixels

  const rect = (x, y, width, height, attributes) => svg("rect", { x, y, width, height, ...attributes });
  const picture = (...shapes) => svg("svg", { viewBox: `0 0 ${W} ${H}`, width: W, height: H }, shapes);
  const lit = (isChosen, name) => `${name}${isChosen ? " is-lit" : ""}`;

  /** How far a head is from attending evenly: 0 is even, 1 is all attention on one token. */
  function sharpness(weights) {
    const entropy = weights.reduce((sum, w) => (w > 0 ? sum - w * Math.log(w) : sum), 0);
    return weights.length > 1 ? 1 - entropy / Math.log(weights.length) : 1;
  }

  const own = ({ trace, token }, layer, head) =>
    row(trace.layers[layer].weights, head * trace.T + token, trace.T).subarray(0, token + 1);

  /** One drawing for each chapter that explains a part of the model. */
  const parts = {
    tokens: ({ pieces, token }) => html("span", { class: "token is-chosen" }, visible(pieces[token], 6)),

    embeddings({ trace, token }) {
      const canvas = html("canvas", {});
      const vector = row(trace.embedded, token);
      paint(canvas, vector, 32, largest(vector), palette());
      return canvas;
    },

    attention(state) {
      const weights = own(state, state.layer, state.head);
      const shown = Array.from(weights.subarray(Math.max(0, weights.length - 7)));
      const [x, most] = [(i) => W - 5 - (shown.length - 1 - i) * 7, Math.max(...shown, 1e-9)];
      const arc = (weight, i) =>
        svg("path", {
          class: "small-arc",
          d: `M${x(i)} 25C${x(i)} ${25 - 0.75 * (W - 5 - x(i))} ${W - 5} ${25 - 0.75 * (W - 5 - x(i))} ${W - 5} 25`,
          "stroke-width": (0.4 + 2.8 * (weight / most)).toFixed(2),
          "stroke-opacity": Math.sqrt(weight / most).toFixed(2),
        });
      return picture(shown.slice(0, -1).map(arc), shown.map((_, i) => svg("circle", { class: lit(i === shown.length - 1, "small-dot"), cx: x(i), cy: 25, r: 2 })));
    },

    heads(state) {
      const [rows, columns] = [state.trace.layers.length, state.trace.layers[0].weights.shape[0]];
      const size = Math.min(7, H / rows, W / columns);
      const left = (W - size * columns) / 2;
      const sharp = state.trace.layers.map((_, l) => Array.from({ length: columns }, (_, h) => sharpness(own(state, l, h))));
      const most = Math.max(...sharp.flat(), 1e-9);
      return picture(
        sharp.map((heads, l) =>
          heads.map((value, h) => {
            return rect(left + h * size + 0.5, (H - rows * size) / 2 + l * size + 0.5, Math.max(0.5, size - 1), Math.max(0.5, size - 1), {
              class: lit(l === state.layer && h === state.head, "small-head"),
              "fill-opacity": (0.08 + (0.92 * value) / most).toFixed(3),
              "data-sharpness": value.toFixed(4),
            });
          }),
        ),
      );
    },

    feedforward({ trace, token, layer }) {
      const values = Array.from(row(trace.layers[layer].hidden, token));
      const ids = best(values.map(Math.abs), 9);
      const most = Math.max(...ids.map((id) => Math.abs(values[id])), 1e-9);
      return picture(
        ids.map((id, i) => {
          const height = (0.5 * (H - 2) * Math.abs(values[id])) / most;
          return rect(3 + i * 5.2, values[id] < 0 ? H / 2 : H / 2 - height, 4, height, { class: values[id] < 0 ? "small-minus" : "small-plus" });
        }),
      );
    },

    /** The stream, and the two corrections of the chosen block, as thick as they are long beside it. */
    block({ trace, token, layer }) {
      const { input, attentionOut, feedForwardOut, output } = trace.layers[layer];
      const of = (matrix) => length(row(matrix, token));
      const most = Math.max(of(input), of(attentionOut), of(feedForwardOut), of(output), 1e-9);
      const thick = (matrix) => 1 + (7 * of(matrix)) / most;
      const loop = (y, matrix, name) => svg("path", { class: name, d: `M14 ${y - 8}H34a4 4 0 0 1 0 9H16`, "stroke-width": thick(matrix).toFixed(2) });
      return picture(
        loop(10, attentionOut, "small-read"),
        loop(23, feedForwardOut, "small-add"),
        svg("path", { class: "small-stream", d: "M14 0V15", "stroke-width": thick(input).toFixed(2) }),
        svg("path", { class: "small-stream", d: "M14 15V30", "stroke-width": thick(output).toFixed(2) }),
      );
    },

    /** All blocks, as wide as the stream is long after each. */
    model({ trace, token, layer }) {
      const lengths = trace.layers.map(({ output }) => length(row(output, token)));
      const [most, step] = [Math.max(...lengths, 1e-9), Math.min(8, H / lengths.length)];
      return picture(
        lengths.map((long, l) => {
          const width = (W * long) / most;
          return rect((W - width) / 2, (H - step * lengths.length) / 2 + l * step, width, Math.max(0.5, step - 1.5), { rx: 1.5, class: lit(l === layer, "small-slab") });
        }),
      );
    },

    sampling({ next, token }) {
      const probs = next(token);
      const ids = best(probs, 5);
      return picture(ids.map((id, i) => rect(4, 2 + i * 5.4, Math.max(1, ((W - 6) * probs[id]) / probs[ids[0]]), 4, { rx: 1.2, class: lit(i === 0, "small-slab") })));
    },
  };

  GPT.diagram("contents", {
    isBeside: true,

    mount(element) {
      const nav = element.closest("nav");
      this.slots = Array.from(nav.querySelectorAll("a"), (link) => {
        const draw = parts[link.hash.slice(1)];
        const slot = html("span", { class: draw ? "small-part" : "small-stop", "aria-hidden": "true" });
        link.replaceChildren(slot, html("span", { class: "contents-name" }, ...link.childNodes));
        link.parentElement.classList.toggle("is-part", Boolean(draw));
        return { slot, draw };
      }).filter(({ draw }) => draw);
      opener(nav);
    },

    update(state) {
      for (const { slot, draw } of this.slots) slot.replaceChildren(draw(state));
    },
  });

  /** Hides the button while one of these is in view, which it would cover. */
  function keepAway(button, elements) {
    const inView = new Set();
    const observer = new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) inView[isIntersecting ? "add" : "delete"](target);
      button.classList.toggle("is-away", inView.size > 0);
    });
    elements.filter(Boolean).forEach((element) => observer.observe(element));
  }

  /** In a narrow window: a button with the name of the chapter that is being read, which opens the contents. */
  function opener(nav) {
    const name = html("span", {});
    const button = html("button", { type: "button", class: "contents-open", "aria-expanded": "false", "aria-controls": nav.id }, html("i", {}), name);
    nav.before(button);
    const links = Array.from(nav.querySelectorAll("a"));
    const words = (link) => link.querySelector(".contents-name").textContent.trim();

    function open(isOpen) {
      nav.classList.toggle("is-open", isOpen);
      button.setAttribute("aria-expanded", String(isOpen));
      if (isOpen) (nav.querySelector("[aria-current]") || links[0]).focus();
    }

    function show() {
      const at = links.findIndex((link) => link.hasAttribute("aria-current"));
      name.textContent = at < 0 ? "Contents" : words(links[at]);
      button.setAttribute("aria-label", at < 0 ? "Contents" : `Contents; you are reading: ${words(links[at])}`);
      button.style.setProperty("--read", ((at + 1) / links.length).toFixed(3));
    }

    button.addEventListener("click", () => open(!nav.classList.contains("is-open")));
    nav.addEventListener("click", ({ target }) => target.closest("a") && open(false));
    addEventListener("keydown", ({ key }) => {
      if (key !== "Escape" || !nav.classList.contains("is-open")) return;
      open(false);
      button.focus();
    });
    addEventListener("pointerdown", ({ target }) => {
      if (!nav.contains(target) && !button.contains(target)) open(false);
    });
    new MutationObserver(show).observe(nav, { subtree: true, attributeFilter: ["aria-current"] });
    keepAway(button, [document.querySelector(".map-write") || document.querySelector(".model-map"), document.querySelector("[data-diagram=follow]")]);
    show();
  }
})();
