// The training loop of the small model: rows of the text in, a step of AdamW, and now and then a look at held-out text and a
// sample. It runs in a worker (GPT.worker), or in slices in the page if the browser refuses workers.
//
//   const handle = GPT.learner(answer);
//   handle({ kind: "text", bytes });          a new text, and new random weights: the same ones each time
//   handle({ kind: "run" });                  trains until "pause", or until TOTAL steps are done
//   handle({ kind: "rate", rate });           the peak learning rate
//   handle({ kind: "prompt", bytes });        the beginning of each sample
//   handle({ kind: "weights" });              answers with a copy of the weights
//
// The first tenths of the text are trained on; the last tenth is held out, to measure whether the model only memorises.

var GPT = GPT || {};
GPT.engine("learner", (GPT) => {
  "use strict";
  const CONFIG = { vocab_size: 256, d_model: 32, num_heads: 4, num_layers: 2, d_ff: 128, max_seq_len: 48 };
  const [ROWS, TOTAL, WARMUP] = [4, 2000, 40];
  const [HELD_OUT, EVERY, WINDOWS] = [0.1, 20, 12]; // fraction; steps between two points of the curves; rows of held-out text
  const [SAMPLED, TEMPERATURE] = [[0, 20, 60, 140, 300, 600, 1000, 1500, TOTAL], 0.8]; // steps whose samples are kept
  const [LETTERS, FRESH_EVERY] = [110, 60];
  const FEWEST = 2000; // bytes: with less there is too little to learn, and too little to hold out

  /** Random numbers from 0 to 1, the same ones for the same seed (the generator is called mulberry32). */
  function seeded(seed) {
    let state = seed;
    return () => {
      state = (state + 0x6d2b79f5) | 0;
      let t = Math.imul(state ^ (state >>> 15), 1 | state);
      t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
      return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
    };
  }

  /** The learning rate of a step as a fraction of the peak: up in WARMUP steps, then down in a straight line to a tenth. */
  function schedule(step) {
    if (step < WARMUP) return (step + 1) / WARMUP;
    return 1 - (0.9 * (step - WARMUP)) / (TOTAL - WARMUP);
  }

  /** The mean surprise of a model that knows only how often each byte occurs: -sum of f ln f, in nats. */
  function frequencyLoss(bytes) {
    const counts = new Float64Array(256);
    for (const byte of bytes) counts[byte] += 1;
    return counts.reduce((sum, count) => (count ? sum - (count / bytes.length) * Math.log(count / bytes.length) : sum), 0);
  }

  /** The model before the first step. */
  const fresh = (random = seeded(1)) => GPT.network(CONFIG, random);

  class Learner {
    constructor(bytes) {
      const T = CONFIG.max_seq_len;
      this.cut = Math.floor(bytes.length * (1 - HELD_OUT));
      Object.assign(this, { bytes, step: 0, random: seeded(1), recent: [], points: [], heldOut: [], samples: [] });
      this.network = fresh(this.random);
      [this.tokens, this.targets] = [new Int32Array(ROWS * T), new Int32Array(ROWS * T)];
    }

    /** Fills one row of the batch with the text from `start`: its tokens, and as targets the same, one byte later. */
    fill(row, start) {
      const T = CONFIG.max_seq_len;
      this.tokens.set(this.bytes.subarray(start, start + T), row * T);
      this.targets.set(this.bytes.subarray(start + 1, start + T + 1), row * T);
    }

    /** One training step. Returns the loss before it. */
    train(peak) {
      for (let row = 0; row < ROWS; row += 1) {
        this.fill(row, Math.floor(this.random() * (this.cut - CONFIG.max_seq_len)));
      }
      const loss = this.network.loss(this.tokens, this.targets, ROWS);
      this.network.backward();
      this.network.step(peak * schedule(this.step));
      this.step += 1;
      this.recent.push(loss);
      return loss;
    }

    /** The mean loss on rows that are spread evenly over the held-out part. */
    evaluate() {
      const room = this.bytes.length - this.cut - CONFIG.max_seq_len - 1;
      const batches = WINDOWS / ROWS;
      let sum = 0;
      for (let i = 0; i < batches; i += 1) {
        for (let row = 0; row < ROWS; row += 1) {
          this.fill(row, this.cut + Math.floor(((i * ROWS + row) / (WINDOWS - 1)) * room));
        }
        sum += this.network.loss(this.tokens, this.targets, ROWS) / batches;
      }
      return sum;
    }

    /** What the model writes after a prompt: bytes, drawn one after the other. */
    write(prompt, count, random) {
      const text = prompt.length ? Array.from(prompt) : [10]; // without a prompt: after a line break
      for (let i = 0; i < count; i += 1) text.push(draw(this.network.next(text, TEMPERATURE), random()));
      return Uint8Array.from(text.slice(prompt.length ? 0 : 1));
    }
  }

  /** The byte whose part of the line from 0 to 1 contains `at`. */
  function draw(probs, at) {
    let sum = 0;
    for (let id = 0; id < probs.length; id += 1) {
      sum += probs[id];
      if (at < sum) return id;
    }
    return probs.length - 1;
  }

  GPT.learner = (answer) => {
    const isApart = typeof document === "undefined"; // in a worker, nobody waits for the end of a slice
    const slice = isApart ? 60 : 10; // milliseconds
    let [learner, isRunning, isDue, rate, prompt] = [null, false, false, 0.005, new Uint8Array()];
    let [spent, done] = [0, 0]; // milliseconds and bytes since "run"

    /** A point of both curves; sent with the number of bytes that a second takes. */
    function measure() {
      const { recent, step } = learner;
      const mean = recent.length ? recent.reduce((sum, loss) => sum + loss, 0) / recent.length : null;
      learner.recent = [];
      answer({ kind: "point", step, train: mean, heldOut: learner.evaluate() });
    }

    function sample() {
      const { step } = learner;
      answer({ kind: "sample", step, isKept: SAMPLED.includes(step), bytes: learner.write(prompt, LETTERS, seeded(step + 1)) });
    }

    function progress() {
      answer({ kind: "progress", step: learner.step, isRunning, speed: spent ? (1000 * done) / spent : 0 });
    }

    function turn() {
      isDue = false;
      if (!isRunning) return;
      const start = performance.now();
      while (isRunning && performance.now() - start < slice) {
        const loss = learner.train(rate);
        done += ROWS * CONFIG.max_seq_len;
        if (!Number.isFinite(loss)) {
          isRunning = false;
          answer({ kind: "broken", step: learner.step });
          break;
        }
        if (learner.step % EVERY === 0) measure();
        if (SAMPLED.includes(learner.step) || learner.step % FRESH_EVERY === 0) sample();
        if (learner.step >= TOTAL) isRunning = false;
      }
      spent += performance.now() - start;
      progress();
      next();
    }

    function next() {
      if (isRunning && !isDue) setTimeout(turn);
      isDue = isDue || isRunning;
    }

    const actions = {
      text({ bytes }) {
        learner = new Learner(bytes);
        isRunning = false;
        [spent, done] = [0, 0];
        answer({ kind: "begun", frequency: frequencyLoss(bytes.subarray(0, learner.cut)), weights: learner.network.size });
        measure();
        sample();
        progress();
      },
      run() {
        if (!learner || learner.step >= TOTAL) return;
        isRunning = true;
        [spent, done] = [0, 0];
        next();
      },
      pause() {
        isRunning = false;
        if (learner) progress();
      },
      rate(message) { rate = message.rate; },
      prompt(message) {
        prompt = message.bytes;
        if (learner && !isRunning) sample();
      },
      weights() {
        if (learner) answer({ kind: "weights", step: learner.step, weights: Float64Array.from(learner.network.all) });
      },
    };
    return (message) => actions[message.kind](message);
  };

  Object.assign(GPT.learner, { CONFIG, TOTAL, FEWEST, ROWS, HELD_OUT, EVERY, SAMPLED, fresh });
});
