// Take it apart: every part of the model is a switch, shaded by how much switching it alone off changes the answer. Beside it
// the next token's bars with all parts and without, below it the loss of every token.

var GPT = GPT || {};
(() => {
  "use strict";
  const { html, chip, number, percent, list } = GPT.draw;
  const PAUSE = 300; // milliseconds without a change before all parts are measured
  const NAMED = 3; // more parts that are off are counted
  const BY = ["zero", "mean"];
  const MEASURES = ["answer", "loss"];

  /** A number in three characters: .35, 1.2, 12. */
  function short(value) {
    const text = number(value, Math.abs(value) < 0.995 ? 2 : Math.abs(value) < 9.95 ? 1 : 0);
    return text.replace(/^(−?)0\./, "$1.");
  }

  GPT.diagram("apart", {
    mount(element, model) {
      Object.assign(this, { model, off: new Set(), by: 0, measure: 0, effects: new Map(), shown: null, timer: 0 });
      this.board = GPT.parts.board("The parts of the model: press one to switch it off or on", {
        onpress: (key) => this.toggle([key]),
        onpoint: (key) => this.point(key),
      });
      this.answers = GPT.compared.answers("The next token, with all parts and without", ["all parts", "without"]);
      this.losses = GPT.compared.losses("The loss of each token, with all parts and without", (t) => GPT.app.set({ token: t }));
      this.by$ = GPT.parts.choice("In its place", ["zero", "mean of the text"], (index) => this.replaceBy(index));
      this.measure$ = GPT.parts.choice("Shaded by", ["this token", "the whole text"], (index) => this.shadeBy(index));
      this.readout = html("p", { class: "readout" });
      this.progress = html("span", { class: "note", role: "status" });
      this.sentence = html("p", { class: "apart-sentence" });
      this.buttons = this.actions();
      this.by$.show(0);
      this.measure$.show(0);
      element.append(
        html("div", { class: "controls" }, this.by$.element, this.measure$.element),
        html("div", { class: "apart" },
          html("div", {}, this.board.element, this.readout, html("div", { class: "examples" }, this.buttons, this.progress)),
          html("div", {}, html("h4", {}, "The next token"), this.answers.element)),
        html("h4", {}, "The loss of every token, in nats: grey with all parts, in colour without"),
        this.losses.element,
        this.sentence,
      );
      this.build();
      this.watch(element);
    },

    actions() {
      const { num_layers: L } = this.model.config;
      const everywhere = (part) => Array.from({ length: L }, (_, layer) => `${layer}.${part}`);
      const action = (text, onclick) => html("button", { type: "button", class: "action", onclick }, text);
      return [
        action("All on", () => this.toggle([...this.off])),
        action("The most important one off", () => this.only([this.ranked()[0]])),
        action("No attention", () => this.only(everywhere("attention"))),
        action("No feed-forward", () => this.only(everywhere("feedforward"))),
      ];
    },

    /** One row for each layer, in the order of computation. */
    build() {
      const { num_layers: L, num_heads: H } = this.model.config;
      const heads = Array.from({ length: H }, (_, head) => ({ key: `head.${head}` }));
      const columns = [{ key: "norm1" }, ...heads, { key: "attention" }, { key: "norm2" }, { key: "feedforward" }];
      const named = (key) => ({ key, name: this.name(key) });
      const whole = (key, head) => ({ head, cells: [{ ...named(key), span: columns.length }] });
      const layers = Array.from({ length: L }, (_, layer) => ({
        head: { ...named(`${layer}.block`), text: `Layer ${layer + 1}` },
        cells: columns.map(({ key }) => named(`${layer}.${key}`)),
      }));
      const titles = ["norm", ...heads.map((_, head) => `head ${head + 1}`), "all heads", "norm", "feed-forward"];
      this.board.build(["", ...titles], [whole("positions", "Positions"), ...layers, whole("norm", "Last norm")]);
      for (let layer = 0; layer < L; layer += 1) this.board.get(`${layer}.block`).classList.add("is-name");
    },

    /** A part in words, as it stands in a sentence. */
    name(key) {
      const [layer, part, head] = key.split(".");
      const of = `of layer ${Number(layer) + 1}`;
      return {
        positions: "the positions",
        norm: "the last norm",
        block: `layer ${Number(layer) + 1}`,
        norm1: `the norm before attention ${of}`,
        head: `head ${Number(head) + 1} ${of}`,
        attention: `all attention heads ${of}`,
        norm2: `the norm before feed-forward ${of}`,
        feedforward: `the feed-forward network ${of}`,
      }[part || key];
    },

    toggle(keys) {
      for (const key of keys) if (!this.off.delete(key)) this.off.add(key);
      this.compute();
    },

    only(keys) {
      this.off = new Set(keys);
      this.compute();
    },

    replaceBy(index) {
      this.by = index;
      this.compute();
      this.measureSoon();
    },

    shadeBy(index) {
      this.measure = index;
      this.shade();
    },

    /** A new text or another token: everything is computed again. The effects of all parts wait until the diagram is in view. */
    update(state) {
      const { tokens, token, trace } = state;
      const clean = GPT.ablation.logProbs(trace.logits(token));
      const isKnown = token + 1 < tokens.length;
      const shown = [tokens.join(), token].join(":");
      const isNew = shown !== this.shown;
      Object.assign(this, { shown, state: { ...state }, clean, isKnown });
      this.answer = isKnown ? tokens[token + 1] : GPT.draw.best(clean, 1)[0];
      if (!isNew) return;
      this.result = null;
      this.show();
      this.compute();
      this.measureSoon();
    },

    /** Runs the model without the parts that are off. */
    compute() {
      if (!this.state) return;
      const { tokens, token } = this.state;
      const data = { tokens: Array.from(tokens), off: [...this.off], by: BY[this.by], at: token };
      GPT.jobs.ask("ablation.run", data, (found) => {
        if (!found) return;
        this.result = found;
        this.show();
      });
      this.mark();
    },

    /** Measures every part, when nothing has changed for a moment and the diagram is in view. */
    measureSoon() {
      clearTimeout(this.timer);
      GPT.jobs.stop("ablation.effects");
      this.effects.clear();
      this.shade();
      this.timer = setTimeout(() => this.isInView && this.measureAll(), PAUSE);
    },

    measureAll() {
      if (!this.state || this.effects.size) return;
      const { tokens, token } = this.state;
      const data = { tokens: Array.from(tokens), by: BY[this.by], at: token, answer: this.answer };
      GPT.jobs.ask("ablation.effects", data, (found) => {
        if (found) this.effects.set(found.key, found);
        this.shade();
      });
    },

    watch(element) {
      new IntersectionObserver(([{ isIntersecting }]) => {
        this.isInView = isIntersecting;
        if (isIntersecting) this.measureAll();
      }).observe(element);
    },

    /** The keys of the measured parts, the most important first. Whole layers and all heads together count as well. */
    ranked() {
      const value = (key) => this.effects.get(key)[MEASURES[this.measure]];
      return [...this.effects.keys()].sort((a, b) => value(b) - value(a));
    },

    shade() {
      const keys = GPT.ablation.parts(this.model.config);
      const values = keys.map((key) => this.effects.get(key)?.[MEASURES[this.measure]]);
      const most = Math.max(0.1, ...values.map((value) => Math.abs(value || 0)));
      keys.forEach((key, i) => {
        const [value, isName] = [values[i], key.endsWith(".block")];
        const part = value === undefined ? 0 : Math.sign(value) * Math.sqrt(Math.abs(value) / most);
        const text = value === undefined ? "" : short(value);
        this.board.shade(key, part, isName ? `Layer ${Number(key.split(".")[0]) + 1}` : text);
      });
      this.mark();
      const isDone = this.effects.size === keys.length;
      this.progress.textContent = this.effects.size && !isDone ? `measured ${this.effects.size} of ${keys.length}` : "";
      GPT.parts.enable(this.buttons[1], isDone);
      this.point(null);
      if (isDone) this.say();
    },

    /** Whether a part belongs to one that is off. */
    isInside(key) {
      const [layer, part] = key.split(".");
      const isOff = (other) => this.off.has(`${layer}.${other}`);
      return Boolean(part) && part !== "block" && (isOff("block") || (part === "head" && isOff("attention")));
    },

    /** Shows which parts are on. A part is also off if it belongs to one that is. */
    mark() {
      for (const key of GPT.ablation.parts(this.model.config)) {
        this.board.get(key).setAttribute("aria-pressed", String(!this.off.has(key)));
        this.board.get(key).classList.toggle("is-inside", this.isInside(key));
      }
      GPT.parts.enable(this.buttons[0], this.off.size > 0);
    },

    show() {
      const { pieces, token } = this.state;
      const T = pieces.length;
      const none = new Float32Array(T - 1);
      const [after, before] = this.result ? [this.result.after, this.result.before] : [null, null];
      this.answers.show(after && this.off.size ? [this.clean, after.logProbs] : [this.clean], [this.answer]);
      this.losses.show(pieces, after ? [before, after.losses] : [none, none], token);
      this.say();
    },

    /** What a part does, below the table. */
    point(key) {
      if (!key) {
        this.readout.textContent = "In each part: by how many nats the answer gets worse if this part alone is off.";
        return;
      }
      const found = this.effects.get(key);
      const name = this.name(key);
      const better = (value) => (value < 0 ? `${number(-value)} nats better` : `${number(value)} nats worse`);
      const effect = found && [": off alone, ", chip(GPT.app.piece(this.answer)), ` is ${better(found.answer)}, the whole text ${better(found.loss)} per token`];
      this.readout.replaceChildren(...[name[0].toUpperCase() + name.slice(1), effect || ""].flat());
    },

    say() {
      if (!this.state) return;
      const answer = chip(GPT.app.piece(this.answer));
      const before = this.clean[this.answer];
      if (!this.off.size) {
        const all = ["All parts are on, and ", answer, this.isKnown ? ", which comes next," : ", the likeliest,", ` gets ${percent(Math.exp(before))}. `];
        this.sentence.replaceChildren(...all, ...this.mostImportant());
        return;
      }
      if (!this.result) return;
      const after = this.result.after;
      const mean = (losses) => losses.reduce((sum, loss) => sum + loss, 0) / losses.length;
      const moved = after.logProbs[this.answer] - before;
      const [from, to] = [this.result.before, after.losses].map(mean);
      const first = GPT.draw.best(after.logProbs, 1)[0];
      this.sentence.replaceChildren(
        `Without ${this.missing()}, `, answer,
        ` goes from ${percent(Math.exp(before))} to ${percent(Math.exp(before + moved))}: its loss ${moved < 0 ? "rises" : "falls"} by ${number(Math.abs(moved))}. `,
        ...(first === this.answer ? [] : ["The likeliest token is ", chip(GPT.app.piece(first)), " now. "]),
        Number.isNaN(from) ? "" : `The loss over the whole text ${to > from ? "rises" : "falls"} from ${number(from)} to ${number(to)} nats per token.`,
      );
    },

    /** What is off, in words; one kind of part in all layers is one thing, and a part of one that is off is not named. */
    missing() {
      const keys = [...this.off].filter((key) => !this.isInside(key));
      const { num_layers: L } = this.model.config;
      const isEverywhere = (part) => keys.length === L && L > 1 && keys.every((key) => key.endsWith(`.${part}`));
      if (isEverywhere("attention")) return "any attention";
      if (isEverywhere("feedforward")) return "any feed-forward network";
      return keys.length > NAMED ? `${keys.length} parts` : list(keys.map((key) => this.name(key)));
    },

    mostImportant() {
      if (this.effects.size < GPT.ablation.parts(this.model.config).length) return ["Press a part to switch it off."];
      const single = this.ranked().filter((key) => !/block|attention/.test(key));
      const [first] = single;
      const heads = single.filter((key) => key.includes("head"));
      const nats = (key) => `${number(this.effects.get(key)[MEASURES[this.measure]])} nats`;
      const lost = this.measure ? "the loss of the whole text rises by" : "this token loses";
      return [
        `Most is lost without ${this.name(first)}: ${lost} ${nats(first)}. `,
        /norm/.test(first) && "A norm sets the size of all numbers that follow, so this is a shock more than lost knowledge. ",
        `Of the heads it is ${this.name(heads[0])}, with ${nats(heads[0])}.`,
      ].filter(Boolean);
    },
  });
})();
