// Direct logit attribution: the share of each part in the logit, or in the difference of two logits.

var GPT = GPT || {};
(() => {
  "use strict";
  const { html, chip, number, largest } = GPT.draw;
  const { report, set } = GPT.inside;
  const SHOWN = 12;

  GPT.picture("attribution", {
    mount(element) {
      const { parts, heads, total, target, versus } = report.attribution;
      const question = ["The logit of ", chip(target), versus ? [" minus that of ", chip(versus)] : "", ` is ${number(total)}.`];
      document.getElementById("attributed").append(...question.flat());
      const shown = parts.slice(0, SHOWN);
      const others = parts.slice(SHOWN);
      const sum = others.reduce((all, { value }) => all + value, 0);
      if (others.length) shown.push({ name: `${others.length} others together`, value: sum });
      const lines = shown.map((part) => this.bar(part, largest(shown.map(({ value }) => value))));
      const bars = html("ol", { class: "signed", "aria-label": "The largest shares" }, lines);
      this.map = GPT.parts.headMap("Share of every head", {
        paint: (cell, layer, head) => GPT.parts.heat(cell, heads[layer][head], largest(heads.flat())),
        describe: (layer, head) => number(heads[layer][head], 3),
      });
      const all = html("p", { class: "readout" }, `All ${parts.length} shares together: ${number(total)}.`);
      const left = html("div", {}, html("h4", {}, "The largest shares"), bars, all);
      const right = html("div", {}, html("h4", {}, "Every head"), this.map.element);
      element.append(html("div", { class: "two" }, left, right));
    },

    bar({ name, value, layer, head }, most) {
      const width = Math.min(50, (50 * Math.abs(value)) / most);
      const left = value < 0 ? 50 - width : 50;
      const style = `left: ${left}%; width: ${width}%`;
      const bar = html("span", { class: value < 0 ? "signed-bar is-minus" : "signed-bar", style });
      const inside = [
        html("span", { class: "signed-label" }, name),
        html("span", { class: "signed-track", "aria-hidden": "true" }, bar),
        html("span", { class: "signed-value" }, number(value)),
      ];
      const act = { type: "button", onclick: () => set({ layer, head }) };
      return html("li", {}, head === undefined ? html("div", {}, inside) : html("button", act, inside));
    },

    update(state) {
      this.map.show(state);
    },
  });
})();
