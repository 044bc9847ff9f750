// Layer norm and RMSNorm of the chosen token's own vector: how much do they differ?

var GPT = GPT || {};
(() => {
  "use strict";
  const { html, number, row, largest, length } = GPT.draw;

  GPT.diagram("norms", {
    mount(element, model) {
      this.layers = GPT.parts.layerChoice(model);
      this.strips = GPT.parts.strips("The chosen token's vector after layer norm and after RMSNorm");
      element.append(html("div", { class: "controls" }, this.layers.element), this.strips.element);
    },

    update(state) {
      this.layers.show(state);
      const vector = row(state.trace.layers[state.layer].input, state.token);
      const { config } = GPT.model;
      const ones = new Float32Array(vector.length).fill(1);
      const centred = GPT.maths.layerNorm(vector, ones, null, config.norm_eps);
      const scaled = GPT.maths.rmsNorm(vector, ones, config.norm_eps);
      const gap = centred.map((x, c) => x - scaled[c]);
      const most = largest(centred, scaled);
      const rows = [["layer norm", centred], ["RMSNorm", scaled], ["difference", gap]];
      this.strips.show(rows.map(([label, values]) => ({ label, values, most })),
        (c) => `Number ${c + 1}: ${number(vector[c])} becomes ${number(centred[c])} or ${number(scaled[c])}`);
      const mean = vector.reduce((sum, x) => sum + x, 0) / vector.length;
      const rms = length(vector) / Math.sqrt(vector.length);
      return `The mean of this vector is ${number(mean, 3)} and its root mean square ${number(rms, 3)}. RMSNorm does not subtract the mean, so the two results differ by ${number(100 * length(gap) / (length(centred) || 1), 1)}% of their length. Both are shown before the learned weights.`;
    },
  });
})();
