// Training in the page: a small model learns the reader's text while the reader watches. learner.js does the work in a
// worker; this file has the buttons, the curves and the samples.

var GPT = GPT || {};
(() => {
  "use strict";
  const { html, number, count } = GPT.draw;
  const { chart, slider, button } = GPT.charts;
  const { TOTAL, EVERY, FEWEST, HELD_OUT, SAMPLED } = GPT.learner;
  const STOPS = Array.from({ length: TOTAL / EVERY + 1 }, (_, i) => i * EVERY);
  const RATES = [0.0001, 0.0003, 0.001, 0.002, 0.005, 0.01, 0.03, 0.1, 0.3, 1, 3];
  const MOST = 1_000_000; // bytes
  const [UNIFORM, HIGHEST] = [Math.log(256), 12];
  const PAUSE = 300; // milliseconds without typing before the worker gets a text
  const CLOSE = 0.05; // nats: losses that are nearer to each other are about the same
  const FILES = ["operations", "network", "learner"];

  /** Bytes as text. A byte that is no character, or one that cannot be shown, becomes a box. */
  const readable = (bytes) => new TextDecoder().decode(bytes)
    .replace(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f\ufffd]/g, "▯");

  const encode = (text) => new TextEncoder().encode(text);

  GPT.diagram("learn", {
    mount(element) {
      Object.assign(this, { worker: null, onweights: [], awaited: 0, isDue: false });
      this.makeControls();
      this.chart = chart("Loss by step", (index) => { this.at = index; });
      this.samples = html("ol", { class: "train-samples", "aria-label": "Samples, from the first step to the latest" });
      this.fresh = html("p", { class: "train-fresh", "aria-live": "off" });
      this.when = html("span", { class: "train-when" });
      const prompt = html("input", { type: "text", value: "ROMEO:", spellcheck: "false", autocomplete: "off", maxlength: 40,
        oninput: () => this.post({ kind: "prompt", bytes: encode(prompt.value) }) });
      this.prompt = prompt;
      element.append(this.source, this.controls, this.bar,
        html("div", { class: "train-columns" }, this.chart.element,
          html("div", {}, html("label", { class: "train-prompt" }, "What it writes after", prompt), this.fresh, this.when)),
        html("details", { class: "train-kept", open: "" }, html("summary", {}, "What it wrote after how many steps"), this.samples));
      this.read(GPT.data.plays.acts);
      document.addEventListener("visibilitychange", () => this.post({ kind: document.hidden || !this.isWanted ? "pause" : "run" }));
      this.watch(element);
      GPT.trained = { weights: (then) => this.askWeights(then), bytes: () => this.learned };
    },

    /** Notes whether the diagram is in view. Out of view, a line in the corner shows that the training goes on. */
    watch(element) {
      new IntersectionObserver((entries) => {
        this.isInView = entries.at(-1).isIntersecting;
        if (this.isInView) this.hire();
        this.drawCorner();
      }).observe(element);
    },

    drawCorner() {
      const last = this.points.at(-1);
      this.corner.hidden = this.isInView || !this.isRunning || !last;
      if (!this.corner.hidden) this.corner.textContent = `Training: step ${count(this.step)} of ${count(TOTAL)}, loss ${number(last.heldOut)}`;
    },

    /** Starts the worker, the first time that the diagram is in view or somebody needs it. */
    hire() {
      if (this.worker) return;
      this.worker = GPT.worker(FILES, (GPT, answer) => GPT.learner(answer));
      this.worker.onanswer = (found) => this[`on_${found.kind}`](found);
      this.post({ kind: "prompt", bytes: encode(this.prompt.value) });
      this.post({ kind: "rate", rate: this.peak });
      this.teach();
    },

    post(message) {
      if (this.worker) this.worker.post(message);
    },

    makeControls() {
      this.corner = html("a", { class: "train-corner", href: "#learn", hidden: "" });
      document.body.append(this.corner);
      const example = (name, label) => html("button", { type: "button", class: "action", onclick: () => this.read(GPT.data.plays[name]) }, label);
      this.box = html("textarea", { class: "train-text", rows: 4, spellcheck: "false", "aria-label": "The text to learn from",
        oninput: () => this.read(this.box.value, PAUSE) });
      this.size = html("p", { class: "readout", role: "status" });
      this.source = html("div", { class: "train-source" },
        html("div", { class: "train-examples" }, html("span", {}, "The text to learn from: your own, or"),
          example("acts", "two acts of Romeo and Juliet"), example("scene", "one short scene")), this.box, this.size);
      this.start = button("Start", () => this.want(true));
      this.start.classList.add("is-main");
      this.pause = button("Pause", () => this.want(false));
      this.reset = button("Reset", () => this.read(this.box.value));
      this.rate = slider("Learning rate", { steps: RATES }, (rate) => {
        this.peak = rate;
        this.post({ kind: "rate", rate });
      });
      this.peak = 0.005;
      this.rate.show(this.peak);
      this.controls = html("div", { class: "controls" }, html("div", { class: "buttons" }, this.start, this.pause, this.reset), this.rate.element);
      this.bar = html("progress", { class: "train-bar", max: TOTAL, value: 0, "aria-label": "Steps done" });
    },

    /** Takes a text, and makes a new model for it: after `wait` milliseconds, in which more may be typed. */
    read(text, wait = 0) {
      if (this.box.value !== text) this.box.value = text;
      this.bytes = encode(text).slice(0, MOST);
      const size = this.bytes.length;
      Object.assign(this, { isWanted: false, isRunning: false, step: 0, speed: 0, points: [], kept: [], latest: null, at: null, broken: false });
      this.isShort = size < FEWEST;
      if (!this.isShort) this.learned = this.bytes;
      this.size.textContent = this.isShort
        ? `${count(size)} bytes. That is too short to learn from: at least ${count(FEWEST)} are needed.`
        : `${count(size)} bytes: ${count(Math.floor(size * (1 - HELD_OUT)))} to learn from, and the rest held out.`;
      this.size.classList.toggle("is-wrong", this.isShort);
      this.post({ kind: "pause" });
      this.isDue = !this.isShort;
      clearTimeout(this.typing);
      if (wait) this.typing = setTimeout(() => this.teach(), wait);
      else this.teach();
      this.draw();
    },

    /** Gives the worker the text, if it does not have it yet. */
    teach() {
      clearTimeout(this.typing);
      if (!this.worker || !this.isDue) return;
      this.isDue = false;
      this.awaited += 1;
      this.post({ kind: "text", bytes: this.bytes });
    },

    /** Whether an answer is about an earlier text. */
    isOld() { return this.isShort || this.isDue || this.awaited > 0; },

    want(isWanted) {
      this.isWanted = isWanted;
      this.hire();
      this.teach();
      this.post({ kind: isWanted ? "run" : "pause" });
      if (isWanted) this.isRunning = true; // a pause is shown when the worker has answered
      this.draw();
    },

    /** Asks for a copy of the weights; `then` is called with { step, weights }. */
    askWeights(then) {
      this.onweights.push(then);
      this.hire();
      this.teach();
      this.post({ kind: "weights" });
    },

    on_begun({ frequency, weights }) {
      this.awaited -= 1;
      if (this.isOld()) return;
      Object.assign(this, { frequency, count: weights, points: [], kept: [], at: null });
    },

    on_point({ step, train, heldOut }) {
      if (this.isOld()) return;
      this.points.push({ step, train, heldOut });
      this.draw();
    },

    on_sample({ step, isKept, bytes }) {
      if (this.isOld()) return;
      this.latest = { step, text: readable(bytes) };
      if (isKept && !this.kept.some((sample) => sample.step === step)) this.kept.push(this.latest);
      this.drawSamples();
    },

    on_progress({ step, isRunning, speed }) {
      if (this.isOld()) return;
      Object.assign(this, { step, isRunning, speed });
      if (step >= TOTAL) this.isWanted = false;
      this.drawState();
    },

    on_broken({ step }) {
      if (this.isOld()) return;
      Object.assign(this, { step, isRunning: false, isWanted: false, broken: true });
      this.draw();
    },

    on_weights({ step, weights }) {
      for (const then of this.onweights.splice(0)) then({ step, weights });
    },

    update() { return this.draw(); },

    draw() {
      this.drawChart();
      this.drawSamples();
      this.drawState();
    },

    drawSamples() {
      const text = this.isShort ? "" : (this.latest && this.latest.text) || "";
      this.fresh.textContent = text;
      this.when.textContent = text && `written after ${count(this.latest.step)} steps`;
      const done = this.kept.map(({ step, text }) =>
        html("li", {}, html("b", {}, count(step)), html("span", {}, text.replace(/\n/g, "↵"))));
      const open = SAMPLED.slice(done.length).map((step) =>
        html("li", { class: "is-open" }, html("b", {}, count(step)), html("span", {}, "not yet")));
      this.samples.replaceChildren(...done, ...open);
    },

    drawState() {
      const isDone = this.step >= TOTAL;
      this.bar.value = this.step;
      GPT.parts.enable(this.start, !(this.isShort || this.isRunning || isDone || this.broken));
      GPT.parts.enable(this.pause, this.isRunning);
      GPT.parts.enable(this.reset, !this.isShort && (this.step > 0 || this.isRunning));
      this.start.textContent = this.step && !isDone ? "Continue" : "Start";
      this.drawCorner();
      const reading = this.bar.closest(".diagram").querySelector(".reading");
      if (reading) reading.textContent = this.sentence();
    },

    drawChart() {
      const points = this.points.length ? this.points : [{ step: 0, train: null, heldOut: UNIFORM }];
      const low = (value) => Math.min(HIGHEST, value);
      const losses = points.flatMap(({ train, heldOut }) => [train || 0, heldOut]);
      const highest = Math.min(HIGHEST, Math.max(6, ...losses) * 1.02);
      const levels = [{ y: UNIFORM, label: `all 256 bytes equally likely: ${number(UNIFORM)}` }];
      if (this.frequency !== undefined && !this.isShort) levels.push({ y: this.frequency, label: `knows only how often each byte occurs: ${number(this.frequency)}` });
      this.chart.show({
        x: { label: "step", from: 0, to: TOTAL, ticks: [0, 500, 1000, 1500, 2000] },
        y: { label: "loss, in nats per byte", from: 0, to: highest },
        levels, above: points.filter(({ train, heldOut }) => Math.max(train || 0, heldOut) > HIGHEST).map(({ step }) => step),
        lines: [{ label: "training text", style: "other", points: points.filter(({ train }) => train !== null).map(({ step, train }) => [step, low(train)]) },
          { label: "held-out text", style: "main", points: points.map(({ step, heldOut }) => [step, low(heldOut)]) }],
        stops: STOPS, at: this.at ?? points.length - 1,
        describe: (index) => {
          const { step, train, heldOut } = points[index] || {};
          if (step === undefined) return `Step ${count(STOPS[index])}: not reached yet.`;
          return `Step ${count(step)}: ${train === null ? "" : `${number(train)} on the training text, `}${number(heldOut)} on held-out text.`;
        },
      });
    },

    sentence() {
      if (this.isShort) return "Paste a longer text, or take one of the two above.";
      if (this.broken) return `At step ${count(this.step)} the loss is no longer a number: the weights have grown too large to compute with. Choose a smaller learning rate and press Reset.`;
      const last = this.points.at(-1);
      if (!this.step || !last) return `${this.isRunning ? "Training begins." : "Press Start."} The model has ${count(this.count || 35200)} random weights, and writes noise.`;
      const speed = this.speed ? ` It learns from ${count(Math.round(this.speed / 100) * 100)} bytes a second.` : "";
      const state = this.step >= TOTAL ? `All ${count(TOTAL)} steps are done.` : `${this.isRunning ? "Step" : "Paused at step"} ${count(this.step)} of ${count(TOTAL)}.`;
      return `${state}${this.isRunning ? speed : ""} ${this.verdict(last)}`;
    },

    verdict({ train, heldOut }) {
      const lowest = Math.min(...this.points.map((point) => point.heldOut));
      const share = Math.exp(-heldOut);
      if (heldOut > UNIFORM + 0.3) return "The loss is higher than that of guessing: the learning rate is too large, and each step lands far from where the slope promised. Make the rate smaller, or press Reset.";
      if (this.step >= 100 && heldOut > this.frequency + CLOSE) return "It is still worse than a model that only counts bytes. With this learning rate, the steps are too large or too small.";
      if (train !== null && heldOut > lowest + 0.1 && heldOut > train + 0.25) return `The loss on held-out text was ${number(lowest)} and has risen to ${number(heldOut)}, while the other still falls: the model now memorises the text.`;
      return `It gives the right next byte of held-out text a probability of about ${GPT.draw.percent(share)} (e to the power of −${number(heldOut)}).`;
    },
  });
})();
