// The learning rate over a run: warm-up, then one of three schedules.

var GPT = GPT || {};
(() => {
  "use strict";
  const { html, percent, number } = GPT.draw;
  const { chart, slider } = GPT.charts;
  const { lrScale } = GPT.training;
  const TOTAL = 100;
  const [KINDS, NAMES] = [["cosine", "wsd", "constant"], ["cosine", "warm-up, stable, decay", "constant"]];
  const whole = (fraction) => `${Math.round(100 * fraction)}%`;

  GPT.diagram("schedule", {
    mount(element) {
      this.settings = { ...GPT.data.settings.optimizer, warmup_fraction: 0.1 };
      this.step = 40;
      const change = (name) => (value) => { this.settings[name] = value; GPT.app.set({}); };
      this.kinds = GPT.parts.choice("Schedule", NAMES, (index) => change("schedule")(KINDS[index]));
      this.sliders = {
        warmup_fraction: slider("Warm-up, fraction of all steps", { max: 0.5, step: 0.01, text: whole }, change("warmup_fraction")),
        min_lr_ratio: slider("Minimum, fraction of the peak", { max: 1, step: 0.01, text: whole }, change("min_lr_ratio")),
        decay_fraction: slider("Decay, fraction of all steps", { min: 0.01, max: 1, step: 0.01, text: whole }, change("decay_fraction")),
      };
      this.chart = chart("Learning rate by step", (index) => { this.step = index; GPT.app.set({}); });
      const parts = [this.kinds, ...Object.values(this.sliders)].map((part) => part.element);
      element.append(html("div", { class: "controls" }, parts), this.chart.element);
    },

    update() {
      const { settings, step } = this;
      this.kinds.show(KINDS.indexOf(settings.schedule));
      for (const [name, part] of Object.entries(this.sliders)) part.show(settings[name]);
      this.sliders.decay_fraction.element.hidden = settings.schedule !== "wsd";
      this.sliders.min_lr_ratio.element.hidden = settings.schedule === "constant";
      const rate = (fraction) => `${number(fraction * settings.learning_rate * 1e4)} of ${number(settings.learning_rate * 1e4)} × 10⁻⁴`;
      const points = Array.from({ length: TOTAL }, (_, s) => [s, lrScale(s, TOTAL, settings)]);
      this.chart.show({
        x: { label: `step, of ${TOTAL}`, from: 0, to: TOTAL, ticks: [0, 20, 40, 60, 80, 100] },
        y: { label: "fraction of the peak learning rate", from: 0, to: 1, ticks: [0, 0.25, 0.5, 0.75, 1], text: whole },
        lines: [{ style: "main", points }], stops: points.map(([s]) => s), at: step,
        describe: (s) => `Step ${s}: ${percent(points[s][1])} of the peak; with this project's default peak, ${rate(points[s][1])}.`,
      });
      return this.sentence(points.map(([, fraction]) => fraction));
    },

    sentence(fractions) {
      const { warmup_fraction: warmup, schedule } = this.settings;
      const climb = Math.round(warmup * TOTAL);
      const first = climb
        ? `The learning rate rises for ${climb === 1 ? "1 step" : `${climb} steps, and is not 0 in the first`}.`
        : "There is no warm-up.";
      const rest = {
        cosine: "Then it follows half a period of the cosine down to the minimum.",
        wsd: "Then it stays at the peak and decreases linearly at the end.",
        constant: "Then it stays at the peak.",
      }[schedule];
      const sum = fractions.reduce((a, b) => a + b, 0);
      return `${first} ${rest} The sum of all ${TOTAL} rates equals that of ${number(sum, 0)} steps at the peak.`;
    },
  });
})();
