// Prefill and decode, step by step, with the real cache: the model reads the reader's text, then continues it.

var GPT = GPT || {};
(() => {
  "use strict";
  const { html, chip, count, paint, palette, largest, best, shades } = GPT.draw;
  const { slider, button, bytes } = GPT.charts;
  const { cacheOf } = GPT.reading;
  const { cacheBytes } = GPT.generation;
  const [FEWEST, MOST, PAUSE] = [2, 10, 900]; // generated tokens, and milliseconds between them
  const ROWS = ["keys", "values", "weights"];

  GPT.diagram("cache", {
    mount(element, model) {
      Object.assign(this, { model, moment: 0, tokens: null, timer: null });
      const go = (moment) => { this.stop(); this.moment = moment; GPT.app.set({}); };
      this.moments = slider("Step", { max: 1, text: (moment) => this.name(moment) }, go);
      this.back = button("‹ Back", () => go(Math.max(0, this.moment - 1)));
      this.play = button("▶\ufe0e Play", () => this.toggle());
      this.next = button("Next ›", () => go(Math.min(this.last, this.moment + 1)));
      this.layers = GPT.parts.layerChoice(model);
      this.heads = GPT.parts.headChoice(model);
      this.text = html("p", { class: "context cache-text", "aria-label": "The text at this step" });
      this.factors = html("p", { class: "factors" });
      this.rows = Object.fromEntries(ROWS.map((name) => [name, row()]));
      const term = (name, colour) => html("span", { class: colour, "data-term": name }, `${name}s`);
      const labels = { keys: term("key", "k"), values: term("value", "v"), weights: "attention weights" };
      this.scale = GPT.parts.shadeScale();
      element.append(
        html("div", { class: "controls" }, html("div", { class: "buttons" }, this.back, this.play, this.next), this.moments.element),
        this.text,
        html("div", { class: "controls" }, this.layers.element, this.heads.element),
        html("div", { class: "cache-rows" },
          ROWS.flatMap((name) => [html("span", { class: "note" }, labels[name]), this.rows[name].element]),
          html("span", {}), this.scale.element),
        this.factors);
    },

    update(state) {
      if (state.tokens !== this.tokens) this.read(state);
      this.writeTo(this.moment);
      this.layers.show(state);
      this.heads.show(state);
      this.moments.show(this.moment);
      GPT.parts.enable(this.back, this.moment > 0);
      GPT.parts.enable(this.next, this.moment < this.last);
      this.play.textContent = this.timer ? "❚❚ Pause" : "▶\ufe0e Play";
      this.showText();
      this.showRows(state);
      this.showBytes();
      return this.sentence(state);
    },

    /** Starts with a new text: as much of it as leaves positions of the context free. The page has read it already. */
    read({ tokens, trace }) {
      this.stop();
      const longest = this.model.config.max_seq_len;
      const fresh = Math.min(MOST, Math.max(longest - tokens.length, Math.min(FEWEST, Math.floor(longest / 2))));
      const past = Math.min(tokens.length, longest - fresh);
      const read = past < trace.T ? GPT.reading.joined(this.model, trace, { past, trace: null }) : trace;
      this.tokens = tokens;
      this.prompt = read.tokens;
      this.cache = cacheOf(this.model, read, past + fresh);
      this.passes = [{ tokens: read.tokens, trace: read, next: likeliest(read) }];
      this.last = fresh + 1;
      this.moment = Math.min(1, this.last);
      this.moments.limit(0, this.last);
    },

    /** Continues the text greedily, up to a step. */
    writeTo(moment) {
      while (this.passes.length < moment) {
        const tokens = [this.passes.at(-1).next];
        const trace = this.model.advance(tokens, this.cache);
        this.passes.push({ tokens, trace, next: likeliest(trace) });
      }
    },

    name(moment) {
      return moment === 0 ? "before" : moment === 1 ? "prefill" : `decode ${moment - 1}`;
    },

    /** Tokens in the cache at a step. */
    length(moment) {
      return moment ? this.prompt.length + moment - 1 : 0;
    },

    toggle() {
      if (this.timer) this.stop();
      else {
        if (this.moment === this.last) this.moment = 0;
        this.timer = setInterval(() => {
          this.moment = Math.min(this.last, this.moment + 1);
          if (this.moment === this.last) this.stop();
          GPT.app.set({});
        }, PAUSE);
      }
      GPT.app.set({});
    },

    stop() {
      clearInterval(this.timer);
      this.timer = null;
    },

    showText() {
      const [was, now] = [this.length(Math.max(0, this.moment - 1)), this.length(this.moment)];
      const all = [...this.prompt, ...this.passes.map(({ next }) => next)];
      const shown = this.moment ? all.slice(0, now + 1) : this.prompt;
      this.text.replaceChildren(...shown.map((id, i) => {
        const token = chip(GPT.app.piece(id));
        if (i >= was && i < now) token.classList.add("is-read");
        if (i === now && this.moment) token.classList.add("is-next");
        if (!this.moment) token.classList.add("is-waiting");
        return token;
      }));
    },

    showRows({ layer, head }) {
      const { num_heads: H, kv_heads: K, head_dim: D } = this.model.config;
      const kv = Math.floor((head * K) / H);
      const [columns, used, was] = [this.cache.maxLen, this.length(this.moment), this.length(Math.max(0, this.moment - 1))];
      for (const [name, colour] of [["keys", "key"], ["values", "value"]]) {
        const stored = this.cache[name][layer].subarray(kv * columns * D, (kv + 1) * columns * D); // (columns, D)
        const prompt = stored.subarray(0, this.prompt.length * D);
        const values = new Float32Array(D * columns);
        for (let t = 0; t < used; t += 1) for (let d = 0; d < D; d += 1) values[d * columns + t] = stored[t * D + d];
        paint(this.rows[name].canvas, values, columns, largest(prompt), palette(colour));
        this.rows[name].show(columns, was, used);
      }
      const pass = this.moment ? this.passes[this.moment - 1] : null;
      const T = pass ? pass.trace.T : 1;
      const shown = new Float32Array(T * columns);
      if (pass) {
        const weights = pass.trace.layers[layer].weights; // (H, T, used)
        for (let t = 0; t < T; t += 1) {
          const from = (head * T + t) * used;
          shown.set(weights.subarray(from, from + used), t * columns);
        }
      }
      paint(this.rows.weights.canvas, shades(shown, columns), columns, 1, palette());
      const own = shown.subarray((T - 1) * columns);
      this.scale.show(pass ? ["Last row: "] : ["Each row: "], pass ? own.reduce((a, b) => Math.max(a, b), 0) : 1);
      this.rows.weights.canvas.style.height = T === 1 ? "1.1rem" : "7rem";
      this.rows.weights.show(columns, 0, used);
    },

    showBytes() {
      const { num_layers: L, kv_heads: K, head_dim: D } = this.model.config;
      const tokens = this.length(this.moment);
      const parts = [[L, "layers"], [2, "keys, values"], [K, "key/value heads"], [tokens, "tokens"], [D, "head width"], [4, "bytes per number"]];
      const sign = (text) => html("span", { class: "sign" }, text);
      const factor = (value, name, kind) => html("span", { class: kind }, html("b", {}, count(value)), html("small", {}, name));
      this.factors.replaceChildren(
        ...parts.flatMap(([value, name], i) => (i ? [sign("×"), factor(value, name)] : [factor(value, name)])),
        sign("="), factor(cacheBytes(this.model.config, tokens), "bytes in use", "sum"));
    },

    sentence({ layer, head }) {
      const { config } = this.model;
      if (!this.moment) {
        const most = this.cache.maxLen;
        return `The cache is allocated once, for ${count(most)} tokens: ${bytes(cacheBytes(config, most))}. It is still empty.`;
      }
      const { tokens, next } = this.passes[this.moment - 1];
      const following = [chip(GPT.app.piece(next)), "."];
      if (this.moment > 1) {
        return ["Decode: one token, ", chip(GPT.app.piece(tokens[0])), ", passes through the model. It adds one column, and its query is " +
          `compared with all ${count(this.length(this.moment))} keys. All other keys and values are read, not computed. The most likely next token is `, ...following];
      }
      const part = tokens.length < this.tokens.length ? "the first" : "all";
      const read = tokens.length === 1 ? "one token passes" : `${part} ${count(tokens.length)} tokens of your text pass`;
      const layers = config.num_layers === 1 ? "the one layer" : `all ${config.num_layers} layers`;
      return [`Prefill: ${read} through the model in one pass. Each stores a key and a value in every head of ${layers}; the picture ` +
        `shows layer ${layer + 1}, head ${head + 1}. The logits of the last one give the first new token, `, ...following];
    },
  });

  /** The most likely token after the last one of a trace. */
  const likeliest = (trace) => best(trace.logits(trace.T - 1), 1)[0];

  /** A map of columns, one for each token that fits: those of this step are framed, unused ones hatched. */
  function row() {
    const canvas = html("canvas", { "aria-hidden": "true" });
    const [fresh, free] = [html("div", { class: "cache-fresh" }), html("div", { class: "cache-free" })];
    const element = html("div", { class: "cache-row" }, canvas, free, fresh);
    function show(columns, was, used) {
      Object.assign(fresh.style, { left: `${(100 * was) / columns}%`, width: `${(100 * (used - was)) / columns}%` });
      fresh.hidden = used === was;
      free.style.left = `${(100 * used) / columns}%`;
    }
    return { element, canvas, show };
  }
})();
