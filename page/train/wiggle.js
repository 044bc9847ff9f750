// One gradient, explained by moving one weight of the small model: the loss with that weight a little smaller and a little
// larger, and the tangent with the slope that backpropagation computed. Then a step: all weights move at once.

var GPT = GPT || {};
(() => {
  "use strict";
  const { html, number, count } = GPT.draw;
  const { chart, slider, button, short } = GPT.charts;
  const { CONFIG } = GPT.learner;
  const [SIDE, REACH, SMALL] = [10, 0.7, 1e-4]; // points on each side of the weight, up to this distance; the wiggle
  const [HIGHEST, HEAVIEST] = [1000, 10_000]; // a loss or a weight above these is of no use
  const RATES = [0.01, 0.03, 0.1, 0.3, 1, 3, 10];
  const PARTS = [
    ["blocks.0.feedforward.up.weight", "block 1: feed-forward, first matrix"],
    ["blocks.0.attention.qkv.weight", "block 1: queries, keys and values"], ["blocks.0.attention.out.weight", "block 1: attention output"], ["blocks.1.attention.qkv.weight", "block 2: queries, keys and values"],
    ["blocks.1.feedforward.up.weight", "block 2: feed-forward, first matrix"], ["embeddings.token.weight", "table of bytes"],
    ["embeddings.position.weight", "table of positions"],
  ];

  const isUsable = (weight) => Math.abs(weight) < HEAVIEST;

  /** A number that may be large. */
  const amount = (value) => (Math.abs(value) < 1000 ? number(value, 4) : value < 1e15 ? `about ${short(value)}` : "more than 1,000 trillion");

  GPT.diagram("wiggle", {
    mount(element) {
      Object.assign(this, { network: null, name: PARTS[0][0], at: null, move: SIDE, step: 0, last: null, taken: 0.1, isBroken: false });
      this.select = html("select", { class: "train-select", onchange: () => { this.name = this.select.value; this.at = null; this.refresh(); } },
        PARTS.map(([name, label]) => html("option", { value: name }, label)));
      this.take = button("Take the weights of the training above", () => this.load());
      this.map = GPT.parts.map("The gradient of each weight of the matrix", (index) => { this.at = index; this.move = SIDE; this.curve(); });
      this.chart = chart("Loss by the value of this weight", (index) => { this.move = index; this.draw(); }, 230);
      this.table = html("dl", { class: "steps" });
      this.remark = html("p", { class: "note" }, "Before the first step, queries and keys (the upper two thirds) have slopes close to 0: every head attends evenly, so what they ask hardly matters yet.");
      this.rate = slider("Learning rate", { steps: RATES }, (rate) => { this.taken = rate; });
      this.rate.show(this.taken);
      this.one = button("One step of all weights", () => this.descend());
      this.stepped = html("p", { class: "readout", role: "status" });
      element.append(
        html("div", { class: "controls" }, html("label", { class: "slider" }, html("span", {}, "Matrix"), this.select), this.take),
        html("div", { class: "train-columns" }, html("div", {}, html("h4", {}, "The gradient: one cell for each weight"), this.map.element, this.remark), html("div", {}, this.chart.element, this.table)),
        html("h4", {}, "A step: every weight, a little against its gradient"),
        html("div", { class: "controls" }, this.rate.element, html("div", { class: "buttons" }, this.one, button("Undo the steps", () => this.undo()))), this.stepped);
    },

    update() {
      if (!this.network) this.begin(0, GPT.learner.fresh().all); // as the training above begins
      else this.paint();
    },

    /** Copies the weights of the model that is being trained. */
    load() {
      GPT.trained.weights(({ step, weights }) => {
        if (weights.every(isUsable)) this.begin(step, weights);
        else this.stepped.textContent = "The weights of the training above are too large to compute with. Choose a smaller learning rate there, press Reset, and train again.";
      });
    },

    begin(step, weights) {
      this.network = GPT.network(CONFIG);
      Object.assign(this, { step, original: Float64Array.from(weights), at: null });
      this.undo();
    },

    undo() {
      this.network.all.set(this.original);
      Object.assign(this, { done: 0, last: null, isBroken: false });
      this.refresh();
    },

    /** The loss on one row, the first 48 bytes of its text, and from it, backwards, the gradient of every weight. */
    measure() {
      const T = CONFIG.max_seq_len;
      const bytes = GPT.trained.bytes();
      const row = bytes.subarray(0, T + 1);
      [this.tokens, this.targets] = [Int32Array.from(row.subarray(0, T)), Int32Array.from(row.subarray(1))];
      return this.network.loss(this.tokens, this.targets, 1);
    },

    refresh() {
      this.remark.hidden = this.step + this.done > 0 || !this.name.endsWith("qkv.weight");
      this.loss = this.measure();
      this.network.backward();
      const values = Float32Array.from(this.network.gradients[this.name]);
      if (this.at === null) this.at = values.reduce((best, value, i) => (Math.abs(value) > Math.abs(values[best]) ? i : best), 0);
      Object.assign(this, { move: SIDE, values });
      this.curve();
      this.paint();
    },

    /** The map and the curve, in the page's present colours. */
    paint() {
      const [values, columns] = [this.values, this.network.shapes[this.name][1]];
      this.map.show(values, this.at, (i) => `Row ${Math.floor(i / columns) + 1}, column ${(i % columns) + 1}: slope ${number(values[i], 5)}.`);
      this.draw();
    },

    /** The loss with this weight alone moved, everything else as it is. */
    lossAt(value) {
      const weights = this.network.weights[this.name];
      const kept = weights[this.at];
      weights[this.at] = value;
      const loss = this.network.loss(this.tokens, this.targets, 1);
      weights[this.at] = kept;
      return loss;
    },

    curve() {
      const here = this.network.weights[this.name][this.at];
      this.here = here;
      this.points = Array.from({ length: 2 * SIDE + 1 }, (_, i) => here + ((i - SIDE) / SIDE) * REACH).map((value) => [value, this.lossAt(value)]);
      this.wiggled = (this.lossAt(here + SMALL) - this.lossAt(here - SMALL)) / (2 * SMALL);
      this.slope = this.network.gradients[this.name][this.at];
      this.draw();
    },

    draw() {
      if (!this.points) return;
      GPT.parts.enable(this.one, !this.isBroken);
      const { points, here, loss, slope, move } = this;
      const ys = points.map(([, y]) => y);
      const [low, high] = [Math.min(...ys), Math.max(...ys)];
      const room = Math.max(high - low, 0.002);
      const reach = Math.min(REACH, Math.abs((0.6 * room) / (slope || 1e-9)));
      const digits = room < 0.05 ? 4 : 3;
      this.chart.show({
        x: { label: "value of the weight", from: points[0][0], to: points.at(-1)[0] },
        y: { label: "loss in nats, on one row of 48 bytes", from: low - 0.3 * room, to: high + 0.3 * room, text: (value) => number(value, digits) },
        lines: [{ label: "loss", style: "main", points }, { label: "tangent, with the slope from backpropagation", style: "other", points: [[here - reach, loss - reach * slope], [here + reach, loss + reach * slope]] }],
        marks: [{ x: here, y: loss, label: "" }],
        stops: points.map(([x]) => x), at: move,
        describe: (index) => (index === SIDE ? `The weight is ${number(here, 4)}, and the loss ${number(loss, 4)}. Move it with the pointer or the arrow keys.`
          : `The weight at ${number(points[index][0], 4)} instead of ${number(here, 4)}: the loss is ${number(points[index][1], 4)} instead of ${number(loss, 4)}.`),
      });
      const lines = [["slope by moving this weight by ±0.0001 and running the model twice", this.wiggled], ["slope by backpropagation, one run for all weights", slope]];
      this.table.replaceChildren(...lines.map(([name, value]) => html("div", {}, html("dt", {}, name), html("dd", {}, number(value, 6)))));
      this.stepped.textContent = this.last || `${this.step ? `These are the weights after ${count(this.step)} steps` : "These are the random weights before the first step"}. One step will move all ${count(this.network.size)} of them.`;
    },

    /** Plain gradient descent: w minus the rate times the gradient, for all weights. What the slopes promise is rate * |gradient|^2. */
    descend() {
      const { all, gradient } = this.network;
      const [rate, before, kept] = [this.taken, this.measure(), all.slice()];
      this.network.backward();
      const promised = rate * gradient.reduce((sum, g) => sum + g * g, 0);
      for (let i = 0; i < all.length; i += 1) all[i] -= rate * gradient[i];
      this.done += 1;
      const after = this.measure();
      if (!(after < HIGHEST && all.every(isUsable))) return this.breakDown(kept, after);
      const change = after - before;
      this.last = `Step ${this.done}: the loss went from ${amount(before)} to ${amount(after)}. The slopes promised a fall of ${amount(promised)}; it ${change < 0 ? "fell" : "rose"} by ${amount(Math.abs(change))}`
        + `${change > 0 ? ": the step was too long, and the curves bend." : "."}`;
      this.refresh();
    },

    /** No more steps from weights that are too large; the pictures keep those of the step before. */
    breakDown(kept, loss) {
      this.network.all.set(kept);
      this.isBroken = true;
      this.last = `Step ${this.done} made the weights unusable: ${Number.isFinite(loss) ? `the loss would be ${amount(loss)}` : "the loss would no longer be a number"}. `
        + "The pictures show the weights before it. Choose a smaller learning rate, and press “Undo the steps” to begin again.";
      this.refresh();
    },
  });
})();
