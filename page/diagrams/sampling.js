// From probabilities to a token: the sampling settings on the real distribution, draws, and longer continuations.

var GPT = GPT || {};
(() => {
  "use strict";
  const { html, chip, best, percent, number, count } = GPT.draw;
  const { slider, button } = GPT.charts;
  const [SHOWN, FRESH, LONGEST] = [12, 12, 30]; // bars; generated tokens; draws that stay visible
  const UNCERTAIN = "Choose an uncertain token";
  const OFF = { repetitionPenalty: 1, temperature: 1, topK: Infinity, topP: 1, minP: 0 };
  const NAMES = {
    model: "the model", repetitionPenalty: "repetition penalty", temperature: "temperature", topK: "top-k", topP: "top-p", minP: "min-p",
  };
  const off = (isOff, text) => (value) => (isOff(value) ? "off" : text(value));

  GPT.diagram("sampling", {
    mount(element, model) {
      Object.assign(this, { model, settings: { ...OFF }, seed: 1, drawn: [], about: "" });
      this.rng = GPT.sampling.rng(this.seed);
      this.presets = Object.entries(GPT.data.settings.sampling).map(([name, preset]) =>
        [{ ...OFF, ...preset }, button(name, () => this.change(preset, true))]);
      this.presets.unshift([OFF, button("unchanged", () => this.change({}, true))]);
      const V = model.config.vocab_size;
      const ks = [1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 50, 80, 100, 200, 500, 1000, 2000, 5000, 10_000].filter((k) => k < V);
      const two = (value) => number(value);
      const make = (name, settings) => slider(NAMES[name], settings, (value) => this.change({ [name]: value }));
      this.sliders = {
        temperature: make("temperature", { max: 2, step: 0.05, text: (t) => (t === 0 ? "greedy" : two(t)) }),
        topK: make("topK", { steps: [...ks, Infinity], text: off((k) => k === Infinity, count) }),
        topP: make("topP", { min: 0.05, max: 1, step: 0.01, text: off((p) => p === 1, two) }),
        minP: make("minP", { max: 0.5, step: 0.01, text: off((p) => p === 0, two) }),
        repetitionPenalty: make("repetitionPenalty", { min: 1, max: 2, step: 0.05, text: off((p) => p === 1, two) }),
      };
      this.mountRest(element);
    },

    mountRest(element) {
      this.bars = GPT.parts.bars("The most likely tokens, before and after");
      this.stages = html("table", { class: "stages" });
      const seed = html("input", { type: "number", min: 0, max: 999_999, step: 1, value: this.seed });
      seed.addEventListener("input", () => {
        this.seed = Math.max(0, Math.floor(Number(seed.value)) || 0);
        this.again();
        GPT.app.set({});
      });
      this.draws = html("p", { class: "context draws", role: "status", "aria-label": "Drawn tokens" });
      element.append(
        html("div", { class: "examples", role: "group", "aria-label": "Presets" },
          html("span", { class: "note" }, "Presets"), this.presets.map(([, part]) => part)),
        html("div", { class: "sliders" }, Object.values(this.sliders).map((part) => part.element)),
        html("div", { class: "columns" }, html("div", {}, this.bars.element), this.stages),
        html("div", { class: "controls drawing" },
          button("Draw", () => this.draw(1)), button("Draw 20", () => this.draw(20)),
          button(`Generate ${FRESH} tokens`, () => this.write()), button(UNCERTAIN, () => this.leastCertain()),
          html("label", { class: "slider" }, html("span", {}, "Seed"), seed)),
        this.draws);
    },

    /** Chooses the token of the text after which the model's own distribution has the largest entropy. */
    leastCertain() {
      const { tokens, next } = GPT.app.state;
      const bits = tokens.map((_, t) => entropy(next(t)));
      GPT.app.set({ token: bits.indexOf(Math.max(...bits)), key: null });
    },

    change(settings, isWhole = false) {
      this.settings = { ...(isWhole ? OFF : this.settings), ...settings };
      this.again();
      GPT.app.set({});
    },

    /** Restarts the random numbers: the same seed gives the same draws. */
    again() {
      this.rng = GPT.sampling.rng(this.seed);
      this.drawn = [];
    },

    draw(times) {
      for (let i = 0; i < times; i += 1) this.drawn.push(GPT.sampling.draw(this.found.at(-1).probs, this.rng()));
      GPT.app.set({});
    },

    /** Continues the reader's text with tokens drawn with these settings. */
    write() {
      const [{ state }, model] = [GPT.app, this.model];
      const uniform = GPT.sampling.rng(this.seed);
      const fresh = Math.min(FRESH, Math.max(1, model.config.max_seq_len - 1));
      const prompt = GPT.generation.promptThatFits(model, state.tokens, fresh);
      const { passes } = GPT.generation.write(model, prompt, fresh - 1, (logits, seen) => {
        const id = GPT.sampling.draw(GPT.sampling.stages(logits, { ...this.settings, seen }).at(-1).probs, uniform());
        return id === model.tokenizer.eot_id ? null : id;
      });
      const written = passes.map(({ next }) => next).filter((id) => id !== null);
      const text = state.text + model.tokenizer.decode(written);
      const end = written.length < fresh ? ", and then the token that ends a text" : "";
      this.wrote = { text, words: `${GPT.draw.things(written.length, "token")} at the end of your text${end}.` };
      GPT.app.write(text);
    },

    update({ trace, token, tokens, pieces, text }) {
      const where = `${text}|${token}`;
      if (where !== this.about) this.again();
      this.about = where;
      this.found = GPT.sampling.stages(trace.logits(token), { ...this.settings, seen: tokens.slice(0, token + 1) });
      const [before, after] = [this.found[0].probs, this.found.at(-1).probs];
      for (const [name, part] of Object.entries(this.sliders)) part.show(this.settings[name] === Infinity ? 1e9 : this.settings[name]);
      for (const [preset, part] of this.presets) {
        part.setAttribute("aria-pressed", String(Object.keys(OFF).every((name) => preset[name] === this.settings[name])));
      }
      this.showBars(before, after);
      this.showStages();
      const isWritten = this.wrote?.text === text && !this.drawn.length;
      this.draws.replaceChildren(isWritten ? this.wrote.words : "", ...this.drawn.slice(-LONGEST).map((id) => chip(GPT.app.piece(id))));
      const kept = after.reduce((sum, p) => sum + (p > 0), 0);
      const [bits, was] = [entropy(after), entropy(before)];
      const lead = ["After ", chip(pieces[token]), " "];
      if (kept === 1) {
        return [...lead, "only one token is left, so every draw gives ", chip(GPT.app.piece(best(after, 1)[0])),
          `. To draw different ones, change the settings or press “${UNCERTAIN}”.`];
      }
      const isSame = Math.abs(bits - was) < 0.005;
      return [...lead, `${count(kept)} of ${count(after.length)} tokens can be drawn. The entropy is ${number(bits)} bits${isSame ? "" : `, and was ${number(was)}`}: ` +
        `as uncertain as a choice among ${number(2 ** bits, 1)} equally likely tokens${isSame ? "" : ` instead of ${number(2 ** was, 1)}`}.`];
    },

    showBars(before, after) {
      const ids = best(before, SHOWN);
      const last = this.drawn.at(-1);
      for (const id of [last, best(after, 1)[0]]) if (id !== undefined && !ids.includes(id)) ids.push(id);
      const most = Math.max(...ids.map((id) => Math.max(before[id], after[id])));
      const rest = (probs) => 1 - ids.reduce((sum, id) => sum + probs[id], 0);
      this.bars.show([
        ...ids.map((id) => ({
          label: chip(GPT.app.piece(id)), fraction: after[id] / most, behind: before[id] / most,
          text: after[id] > 0 ? percent(after[id]) : "excluded", isMarked: id === last,
          title: `${percent(before[id])} before, ${percent(after[id])} after`,
        })),
        {
          label: html("span", { class: "note" }, "all others"), text: rest(after) > 1e-6 ? percent(rest(after)) : "excluded",
          fraction: null,
        },
      ], { most, text: (part) => `${Number((100 * part).toPrecision(3))}%` });
    },

    /** The tokens that are left after each step, in order. */
    showStages() {
      const head = ["step", "kept", "entropy, bits", "most likely"];
      this.stages.replaceChildren(
        html("thead", {}, html("tr", {}, head.map((name) => html("th", { scope: "col" }, name)))),
        html("tbody", {}, this.found.map(({ name, probs, isOn }) => html("tr", { class: !isOn && "is-off" },
          html("th", { scope: "row" }, NAMES[name]),
          [count(probs.reduce((sum, p) => sum + (p > 0), 0)), number(entropy(probs)), percent(probs[best(probs, 1)[0]])]
            .map((value) => html("td", { class: "numbers" }, isOn ? value : "·"))))));
    },
  });

  /** The entropy in bits: 0 if one token is certain. */
  function entropy(probs) {
    return Math.abs(probs.reduce((sum, p) => (p > 0 ? sum - p * Math.log2(p) : sum), 0));
  }
})();
