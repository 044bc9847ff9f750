// Rotary positions: query and key are rotated by an angle that grows with their positions. Their dot product then depends on the
// distance alone.

var GPT = GPT || {};
(() => {
  "use strict";
  const { html, svg, number } = GPT.draw;
  const ANGLE = 0.4; // per position, in radians
  const [QUERY, KEY] = [[1.05, -0.35], [0.3, 0.95]];
  const R = 92; // the length of 1 in the picture

  const rotated = ([x, y], angle) => [x * Math.cos(angle) - y * Math.sin(angle), y * Math.cos(angle) + x * Math.sin(angle)];

  GPT.diagram("rotation", {
    mount(element) {
      Object.assign(this, { start: 3, distance: 2, isRotary: true });
      const max = 24;
      this.start$ = GPT.charts.slider("position of the key", { min: 0, max }, (value) => { this.start = value; this.show(); });
      this.distance$ = GPT.charts.slider("distance to the query", { min: 0, max: 12 }, (value) => { this.distance = value; this.show(); });
      this.start$.show(this.start);
      this.distance$.show(this.distance);
      const choice = GPT.parts.choice("Rotation", ["on", "off"], (index) => { this.isRotary = index === 0; this.show(); });
      choice.show(0);
      const arrow = (kind) => svg("g", { class: `rotation-arrow is-${kind}` },
        svg("line", { x2: 0, y2: 0 }), svg("circle", { r: 5 }), svg("text", { "text-anchor": "middle" }, kind));
      [this.query, this.key] = [arrow("query"), arrow("key")];
      this.picture = svg("svg", { class: "rotation", viewBox: "-145 -135 290 270", role: "img" },
        svg("circle", { class: "rotation-ring", r: R }), svg("line", { class: "rotation-ring", x1: -130, x2: 130 }),
        svg("line", { class: "rotation-ring", y1: -120, y2: 120 }), this.key, this.query);
      this.words = html("p", { class: "later-sentence" });
      element.append(
        html("div", { class: "controls" }, choice.element, this.start$.element, this.distance$.element),
        html("div", { class: "rotation-box" }, this.picture, this.words));
      this.show();
    },

    show() {
      const at = this.start + this.distance;
      const turn = (position) => (this.isRotary ? position * ANGLE : 0);
      const [q, k] = [rotated(QUERY, turn(at)), rotated(KEY, turn(this.start))];
      this.point(this.query, q);
      this.point(this.key, k);
      const dot = q[0] * k[0] + q[1] * k[1];
      const sum = `${number(q[0])} · ${number(k[0])} + ${number(q[1])} · ${number(k[1])} = ${number(dot)}`;
      this.picture.setAttribute("aria-label", `Query at position ${at}, key at position ${this.start}, dot product ${number(dot)}`);
      this.words.replaceChildren(
        html("strong", {}, `Dot product: ${number(dot)}`), html("br", {}), sum, html("br", {}),
        this.isRotary
          ? `The query at position ${at} is rotated by ${number((at * ANGLE * 180) / Math.PI, 0)}°, the key at ${this.start} by ${number((this.start * ANGLE * 180) / Math.PI, 0)}°. Move the key: both turn together, and the dot product stays. Change the distance, and it changes.`
          : "Without rotation the dot product is the same at every position and every distance: the order of the tokens is lost.");
    },

    point(arrow, [x, y]) {
      const [line, end, text] = arrow.children;
      line.setAttribute("x2", R * x);
      line.setAttribute("y2", -R * y);
      end.setAttribute("cx", R * x);
      end.setAttribute("cy", -R * y);
      text.setAttribute("x", R * x * 1.22);
      text.setAttribute("y", -R * y * 1.22 + 5);
    },

    update() {},
  });
})();
