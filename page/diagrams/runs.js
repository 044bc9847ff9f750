// Training and validation loss of three recorded runs, and the trainer's diagnosis at the step that the reader selects.

var GPT = GPT || {};
(() => {
  "use strict";
  const { html, number, count } = GPT.draw;
  const { chart } = GPT.charts;
  const NAMES = { learns: "learns", underfits: "too small a model", overfits: "too little text" };

  GPT.diagram("runs", {
    mount(element) {
      this.names = Object.keys(GPT.data.runs);
      this.run = this.names[0];
      this.at = Object.fromEntries(this.names.map((name) => [name, GPT.data.runs[name].validation.length - 1]));
      this.choice = GPT.parts.choice("Run", this.names.map((name) => NAMES[name]), (index) => {
        this.run = this.names[index];
        GPT.app.set({});
      });
      this.chart = chart("Loss by step: move the cursor through the run", (index) => { this.at[this.run] = index; GPT.app.set({}); }, 290);
      this.verdict = html("p", { class: "verdict" });
      element.append(html("div", { class: "controls" }, this.choice.element), this.chart.element, this.verdict);
      const losses = Object.values(GPT.data.runs).flatMap(({ train, validation }) => [...train, ...validation]).map(([, loss]) => loss);
      [this.bottom, this.top] = [Math.floor(2 * Math.min(...losses)) / 2, 3.5]; // the first steps are far above
    },

    update() {
      const { train, validation, verdicts, steps, parameters } = GPT.data.runs[this.run];
      const at = this.at[this.run];
      this.choice.show(this.names.indexOf(this.run));
      const [step, loss] = validation[at];
      const trained = (s) => train.filter(([t]) => t <= s).pop()[1];
      const soFar = validation.slice(0, at + 1);
      const lowest = soFar.reduce((best, point) => (point[1] < best[1] ? point : best));
      const inside = ([, y]) => y <= this.top;
      const describe = (i) => {
        const [s, found] = validation[i];
        return `Step ${count(s)}: train ${number(trained(s))}, validation ${number(found)}, gap ${number(found - trained(s))}.`;
      };
      this.chart.show({
        x: { label: "step", from: 0, to: steps },
        y: { label: "loss, nats per byte", from: this.bottom, to: this.top, text: (v) => number(v, 1) },
        lines: [
          { label: "training loss", style: "other", points: train.filter(inside) },
          { label: "validation loss, on text that is not used in training", style: "main", points: validation.filter(inside) },
        ],
        marks: [{ x: lowest[0], y: lowest[1], label: "lowest" }],
        stops: validation.map(([s]) => s), at, hideAfter: step,
        describe,
      });
      const [kind, reason] = verdicts[at];
      this.verdict.replaceChildren(html("b", {}, kind), `: ${reason.replace(/-(?=\d)/g, "−")}`);
      const isLowest = lowest[0] === step;
      const sentence = `${count(parameters)} parameters. At step ${count(step)} the validation loss is ${number(loss)}, ` +
        (isLowest ? "the lowest so far." : `${number(loss - lowest[1])} above the lowest, which was at step ${count(lowest[0])}.`);
      return sentence;
    },
  });
})();
