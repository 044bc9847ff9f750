// GELU and SwiGLU: one projection through a curve, or one that decides how much of another passes.

var GPT = GPT || {};
(() => {
  "use strict";
  const { html, svg, number, count } = GPT.draw;
  const { gelu, swiglu: silu } = GPT.maths.activations;
  const [W, H, RANGE] = [300, 200, 4];
  const X = (x) => W / 2 + (x * W) / 2 / RANGE;
  const Y = (y) => H / 2 - (y * H) / 2 / RANGE;

  function curve(f) {
    const points = Array.from({ length: 81 }, (_, i) => -RANGE + (i * 2 * RANGE) / 80);
    return points.map((x, i) => `${i ? "L" : "M"}${X(x).toFixed(1)} ${Y(f(x)).toFixed(1)}`).join("");
  }

  GPT.diagram("gated", {
    mount(element, model) {
      Object.assign(this, { model, x: 1, up: -1.5 });
      this.x$ = GPT.charts.slider("first projection", { min: -4, max: 4, step: 0.1, text: (x) => number(x, 1) }, (x) => { this.x = x; this.show(); });
      this.up$ = GPT.charts.slider("second projection (SwiGLU only)", { min: -2, max: 2, step: 0.1, text: (x) => number(x, 1) }, (x) => { this.up = x; this.show(); });
      this.x$.show(this.x);
      this.up$.show(this.up);
      const picture = () => svg("svg", { class: "plot gated", viewBox: `0 0 ${W} ${H}`, role: "img" },
        svg("path", { class: "axis", d: `M0 ${Y(0)}H${W}M${X(0)} 0V${H}` }), svg("path", { class: "line" }), svg("circle", { class: "spot", r: 6 }));
      this.pictures = [picture(), picture()];
      this.texts = [html("p", { class: "readout" }), html("p", { class: "readout" })];
      element.append(
        html("div", { class: "controls" }, this.x$.element, this.up$.element),
        html("div", { class: "columns" }, ["GELU", "SwiGLU"].map((name, i) => html("div", {}, html("h4", {}, name), this.pictures[i], this.texts[i]))));
      this.show();
    },

    show() {
      const { x, up } = this;
      const functions = [gelu, (z) => silu(z) * up];
      functions.forEach((f, i) => {
        const [, line, spot] = this.pictures[i].children;
        line.setAttribute("d", curve(f));
        spot.setAttribute("cx", X(x));
        spot.setAttribute("cy", Y(f(x)));
        this.pictures[i].setAttribute("aria-label", `${["GELU", "SwiGLU"][i]} of ${number(x, 1)} is ${number(f(x))}`);
      });
      const { d_model: C } = this.model.config;
      const narrow = Math.round((8 * C) / 3);
      this.texts[0].textContent = `GELU(${number(x, 1)}) = ${number(gelu(x))}. Two matrices: 2 × ${count(C)} × ${count(4 * C)} = ${count(8 * C * C)} weights in a layer of width ${count(C)}.`;
      this.texts[1].textContent = `SiLU(${number(x, 1)}) × ${number(up, 1)} = ${number(silu(x) * up)}. Three matrices, made narrower: 3 × ${count(C)} × ${count(narrow)} = ${count(3 * C * narrow)} weights.`;
    },

    update() {},
  });
})();
