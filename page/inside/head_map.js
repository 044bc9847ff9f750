// All heads of a model as a grid: a row for each layer, a column for each head. The pointer, the arrow keys, Home and End
// choose a head, in all pictures at once.

var GPT = GPT || {};
(() => {
  "use strict";
  const { html } = GPT.draw;
  const { report, set, headName } = GPT.inside;

  /** headMap("Induction", { paint(cell, layer, head), describe(layer, head) }): paint colours a cell once, describe gives
   *  the words below the grid. show(state) moves the mark. */
  GPT.parts.headMap = (name, { paint, describe }) => {
    const output = html("p", { class: "readout" });
    const cells = Array.from({ length: report.layers }, (_, layer) =>
      Array.from({ length: report.heads }, (_, head) => cell(layer, head)),
    );
    let [chosen, at] = [null, [0, 0]];

    function cell(layer, head) {
      const words = `head ${headName(layer, head)}: ${describe(layer, head)}`;
      const made = html("div", { class: "head-cell", role: "gridcell", tabindex: -1, "aria-label": words });
      made.dataset.layer = layer;
      made.dataset.head = head;
      paint(made, layer, head);
      return made;
    }

    const rows = cells.map((row, layer) =>
      html("div", { role: "row", class: "head-row" }, html("span", { role: "rowheader" }, `${layer}`), row),
    );
    const heads = Array.from({ length: report.heads }, (_, head) => html("span", { role: "columnheader" }, `${head}`));
    const top = html("div", { role: "row", class: "head-row" }, html("span", { role: "columnheader" }, ""), heads);
    const grid = html("div", { class: "head-map", role: "grid", "aria-label": `${name}: a row for each layer` }, top, rows);
    grid.style.setProperty("--heads", report.heads);
    grid.style.setProperty("--layers", report.layers);
    const scroll = html("div", { class: "head-scroll" }, grid);

    const say = (layer, head) => {
      output.textContent = `Head ${headName(layer, head)}: ${describe(layer, head)}`;
    };
    const headOf = (target) => {
      const found = target.closest(".head-cell");
      return found && [Number(found.dataset.layer), Number(found.dataset.head)];
    };
    grid.addEventListener("pointerover", ({ target }) => headOf(target) && say(...headOf(target)));
    grid.addEventListener("pointerleave", () => say(...at));
    grid.addEventListener("click", ({ target }) => {
      const found = headOf(target);
      if (found) set({ layer: found[0], head: found[1] });
    });
    grid.addEventListener("keydown", (event) => {
      const [layer, head] = at;
      const to = {
        ArrowLeft: [layer, head - 1],
        ArrowRight: [layer, head + 1],
        ArrowUp: [layer - 1, head],
        ArrowDown: [layer + 1, head],
        Home: [layer, 0],
        End: [layer, report.heads - 1],
      }[event.key];
      if (!to) return;
      event.preventDefault();
      const within = (value, count) => Math.max(0, Math.min(count - 1, value));
      set({ layer: within(to[0], report.layers), head: within(to[1], report.heads) });
      chosen.focus({ preventScroll: false });
    });

    function show({ layer, head }) {
      if (chosen) {
        chosen.setAttribute("tabindex", -1);
        chosen.classList.remove("is-chosen");
      }
      at = [layer, head];
      chosen = cells[layer][head];
      chosen.setAttribute("tabindex", 0);
      chosen.classList.add("is-chosen");
      say(layer, head);
    }
    const repaint = () => cells.flat().forEach((made) => paint(made, ...headOf(made)));
    return { element: html("div", { class: "head-box" }, scroll, output), show, repaint };
  };

  /** A colour for a cell: from 0 to 1 stronger, blue below 0. */
  GPT.parts.heat = (element, value, most) => {
    const strength = Math.min(1, Math.abs(value) / (most || 1));
    element.style.setProperty("--strength", `${Math.round(100 * strength)}%`);
    element.classList.toggle("is-minus", value < 0);
  };
})();
