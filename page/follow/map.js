// Follow one number: a small picture of the model, in which the part of the current stop is lit.

var GPT = GPT || {};
(() => {
  "use strict";
  const { svg } = GPT.draw;

  const LINE = 58; // the height of the residual stream

  /** The boxes: name of the place, x, y, width, height. */
  const BOXES = [
    ["text", 2, 48, 26, 20],
    ["embed", 38, 46, 16, 24],
    ["norm", 70, 14, 13, 22],
    ["query", 87, 14, 13, 22],
    ["score", 104, 14, 13, 22],
    ["value", 121, 14, 13, 22],
    ["out", 138, 14, 13, 22],
    ["up", 180, 14, 13, 22],
    ["down", 197, 14, 13, 22],
    ["blocks", 236, 44, 20, 28],
    ["logits", 264, 46, 14, 24],
  ];
  const LOOPS = ["M64 58 V25 H157 V50", "M174 58 V25 H216 V50"];

  /** The picture and show(place). */
  GPT.follow.map = (model) => {
    const blocks = model.config.num_layers - 1;
    const parts = new Map();
    const lit = (place, element) => {
      parts.set(place, [...(parts.get(place) || []), element]);
      return element;
    };
    const element = svg(
      "svg",
      { class: "follow-map", viewBox: "0 0 320 78", "aria-hidden": "true" },
      svg("rect", { x: 59, y: 2, width: 167, height: 72, rx: 8, class: "follow-map-block" }),
      svg("line", { x1: 28, y1: LINE, x2: 288, y2: LINE, class: "follow-map-stream" }),
      LOOPS.map((d) => svg("path", { d, class: "follow-map-loop" })),
      BOXES.map(([place, x, y, width, height]) =>
        lit(place, svg("rect", { x, y, width, height, rx: 3, class: `follow-map-box is-${place}` })),
      ),
      lit("add", svg("circle", { cx: 157, cy: LINE, r: 7, class: "follow-map-box" })),
      lit("down", svg("circle", { cx: 216, cy: LINE, r: 7, class: "follow-map-box" })),
      [157, 216].map((x) => svg("path", { d: `M${x - 4} ${LINE} h8 M${x} ${LINE - 4} v8`, class: "follow-map-sign" })),
      [24, 15, 9].map((width, i) =>
        lit("bars", svg("rect", { x: 290, y: 46 + 9 * i, width, height: 6, rx: 2, class: "follow-map-box" })),
      ),
      svg("text", { x: 246, y: 38, "text-anchor": "middle" }, blocks ? `+${blocks}` : "+0"),
      svg("text", { x: 15, y: 42, "text-anchor": "middle" }, "text"),
    );
    return {
      element,
      show(place) {
        for (const [name, shapes] of parts)
          for (const shape of shapes) shape.classList.toggle("is-here", name === place);
      },
    };
  };
})();
