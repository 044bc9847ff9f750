// The size of a batch: memory and steps for each micro-batch size and number of accumulation steps, and the gradient noise.

var GPT = GPT || {};
(() => {
  "use strict";
  const { html, svg, number, count } = GPT.draw;
  const { chart, slider, bytes } = GPT.charts;
  const { activationBytes } = GPT.training;
  const [ROWS, STEPS] = [[1, 2, 4, 8, 16, 32, 64, 128], [1, 2, 4, 8, 16, 32]];
  const [MEASURED_ROWS, LENGTH, MEASURED_BATCHES] = [8, 128, 320]; // rows per micro-batch, tokens per row, batches per training
  const STYLES = ["third", "other", "main"];

  GPT.diagram("batch", {
    mount(element, model) {
      Object.assign(this, { model, rows: 8, steps: 16, moment: GPT.data.accumulation.noise.length - 1 });
      this.parameters = Object.values(model.weights).reduce((sum, weight) => sum + weight.length, 0);
      const { noise } = GPT.data.accumulation;
      const change = (name) => (value) => { this[name] = value; GPT.app.set({}); };
      this.sliders = {
        rows: slider("Rows in a micro-batch", { steps: ROWS }, change("rows")),
        steps: slider("Accumulation steps", { steps: STEPS }, change("steps")),
      };
      this.moments = GPT.parts.choice("Noise measured at step", noise.map(({ step }) => `${step}`), change("moment"));
      this.chart = chart("Cosine to the true gradient, by rows per step", (index) => { this.steps = STEPS[index]; GPT.app.set({}); });
      this.table = html("table", { class: "batches" });
      this.worth = html("table", {});
      element.append(
        html("div", { class: "controls" }, this.sliders.rows.element, this.sliders.steps.element, this.moments.element),
        this.table, this.chart.element, html("h4", {}, "Measured: the same text, in more or fewer steps"), this.worth);
    },

    update() {
      const { rows, steps } = this;
      this.sliders.rows.show(rows);
      this.sliders.steps.show(steps);
      this.moments.show(this.moment);
      this.showTable([[rows, 1], [rows, steps], [rows * steps, 1]]);
      this.showChart();
      this.showWorth();
      return this.sentence();
    },

    showTable(columns) {
      const lasting = 16 * this.parameters; // weight, gradient and two moment estimates, 4 bytes each
      const scale = GPT.data.accumulation.noise[this.moment].noise_scale;
      const lines = [
        ["one step", ([b, k]) => picture(b, k)],
        ["rows per step", ([b, k]) => count(b * k)],
        ["tokens per step", ([b, k]) => count(b * k * LENGTH)],
        ["activations in memory", ([b]) => bytes(activationBytes(this.model.config, b, LENGTH))],
        ["weights, gradients, optimizer state", () => bytes(lasting)],
        ["steps for 100,000 rows", ([b, k]) => count(Math.ceil(100_000 / (b * k)))],
        ["noise-to-signal ratio", ([b, k]) => number(noiseOf(scale, b * k))],
        ["cosine to the true gradient", ([b, k]) => number(cosineOf(scale, b * k))],
      ];
      this.table.replaceChildren(
        html("thead", {}, html("tr", {}, html("td", {}), columns.map(([b, k], i) =>
          html("th", { scope: "col", class: i === 1 && "is-chosen" }, `${b} × ${k}`)))),
        html("tbody", {}, lines.map(([name, value]) => html("tr", {}, html("th", { scope: "row" }, name), columns.map((column, i) =>
          html("td", { class: i === 1 ? "numbers is-chosen" : "numbers" }, value(column)))))));
    },

    showChart() {
      const { noise } = GPT.data.accumulation;
      const { rows, steps } = this;
      const cosines = (n) => noise.map(({ step, noise_scale: scale }) => `at step ${step} a cosine of ${number(cosineOf(scale, n))}`);
      const across = Array.from({ length: 13 }, (_, i) => 2 ** i); // every product of ROWS and STEPS is among them
      const curves = noise.map(({ step, noise_scale: scale }, i) => ({
        label: `step ${step}`, style: STYLES[STYLES.length - noise.length + i] || "third",
        points: across.map((n) => [n, cosineOf(scale, n)]),
      }));
      const dots = noise.map(({ cosine }, i) => ({
        label: i === noise.length - 1 && "measured", style: curves[i].style, isDots: true,
        points: Object.entries(cosine).map(([k, value]) => [Number(k) * MEASURED_ROWS, value]),
      }));
      this.chart.show({
        x: { label: "rows per step", from: 1, to: 4096, isLog: true, ticks: [1, 4, 16, 64, 256, 1024, 4096] },
        y: { label: "cosine between the step's gradient and the true one", from: 0, to: 1 },
        lines: [...curves, ...dots], stops: STEPS.map((k) => k * rows), at: STEPS.indexOf(steps),
        describe: (index) => `${count(rows * STEPS[index])} rows per step: ${GPT.draw.list(cosines(rows * STEPS[index]))}.`,
      });
    },

    showWorth() {
      const best = new Map();
      for (const trial of GPT.data.accumulation.equal_tokens) {
        const known = best.get(trial.accumulation);
        if (!known || trial.bits_per_byte < known.bits_per_byte) best.set(trial.accumulation, trial);
      }
      const head = ["batch", "steps", "best rate", "bits per byte"];
      this.worth.replaceChildren(html("thead", {}, html("tr", {}, head.map((name) => html("th", { scope: "col" }, name)))),
        html("tbody", {}, Array.from(best.values(), ({ accumulation: k, steps, rate, bits_per_byte: bits }) =>
          html("tr", { class: k * MEASURED_ROWS === this.rows * this.steps && "is-chosen" },
            [`${MEASURED_ROWS} × ${k}`, `${steps}`, `× ${rate}`, number(bits, 3)].map((text) => html("td", { class: "numbers" }, text))))));
    },

    sentence() {
      const { rows: b, steps: k, model } = this;
      if (k === 1) {
        return `A step of one micro-batch of ${b === 1 ? "1 row" : `${b} rows`}: nothing is accumulated. More accumulation steps ` +
          "make the gradient more precise without more memory.";
      }
      const [one, all] = [activationBytes(model.config, b, LENGTH), activationBytes(model.config, b * k, LENGTH)];
      return `${b} × ${k} gives the gradient of one batch of ${count(b * k)} rows, except for rounding, with ${bytes(one)} of activations ` +
        `instead of ${bytes(all)}. The computation is the same. Compared with steps of ${b} × 1, the same text takes ${k} times ` +
        `fewer steps, and the noise is ${number(Math.sqrt(k), 1)} times smaller.`;
    },
  });

  /** Noise over signal in the gradient of n rows; the noise scale is in micro-batches of 8. */
  const noiseOf = (scale, n) => Math.sqrt((scale * MEASURED_ROWS) / n);

  /** The cosine between such a gradient and the true one. */
  const cosineOf = (scale, n) => 1 / Math.hypot(1, noiseOf(scale, n));

  /** The rows of a step as squares in columns of eight: those in full colour are in memory together. */
  function picture(b, k) {
    const unit = Math.max(1, (b * k) / 256); // rows per square
    const [side, gap, high] = [5, 1.2, 8];
    const squares = Array.from({ length: Math.ceil((b * k) / unit) }, (_, i) => svg("rect", {
      class: i * unit < b ? "batch-held" : "batch-later", width: side, height: side, rx: 1,
      x: Math.floor(i / high) * (side + gap), y: (i % high) * (side + gap),
    }));
    const width = Math.ceil(squares.length / high) * (side + gap);
    const height = high * (side + gap);
    return svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" }, squares);
  }
})();
