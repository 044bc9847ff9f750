// Patching: one vector of another text is put into the reader's text. A table of layers by tokens shows how far each vector
// moves the answer towards that of the other text.

var GPT = GPT || {};
(() => {
  "use strict";
  const { html, chip, number, percent, visible, spoken } = GPT.draw;
  const PAUSE = 300; // milliseconds without a change before the cells are computed
  const RUNS = ["your text", "with the patch", "the other text"];

  GPT.diagram("patch", {
    mount(element, model) {
      Object.assign(this, { model, chosen: null, effects: new Map(), isOwn: false, shown: null, timer: 0 });
      this.box = html("textarea", { id: "other-text", rows: 1, spellcheck: "false", autocomplete: "off", autocapitalize: "off" });
      this.box.addEventListener("input", () => {
        this.isOwn = true;
        this.update(GPT.app.state);
      });
      const suggest = html("button", { type: "button", class: "action", onclick: () => this.suggest() }, "Suggest");
      this.board = GPT.parts.board("Effect of each patch, by layer and token", {
        onpress: (key) => this.press(key),
        onpoint: (key) => this.point(key),
      });
      this.answers = GPT.compared.answers("The next token, in three runs", RUNS);
      this.message = html("p", { class: "note", role: "status" });
      this.readout = html("p", { class: "readout" });
      this.sentence = html("p", { class: "apart-sentence" });
      this.result = html("div", { class: "apart" },
        html("div", {}, this.board.element, this.readout),
        html("div", {}, html("h4", {}, "The next token"), this.answers.element));
      element.append(
        html("div", { class: "patch-text" }, html("label", { for: "other-text" }, "The other text"), this.box, suggest),
        this.message, this.result, this.sentence);
      this.watch(element);
    },

    watch(element) {
      new IntersectionObserver(([{ isIntersecting }]) => {
        this.isInView = isIntersecting;
        if (isIntersecting) this.measure();
      }).observe(element);
    },

    suggest() {
      Object.assign(this, { isOwn: false, text: null });
      this.update(GPT.app.state);
    },

    /** A new text: a fitting second text if the reader has not written one, and an empty table. */
    update(state) {
      const { tokens, pieces } = state;
      const isNewText = this.text !== tokens.join();
      this.text = tokens.join();
      if (!this.isOwn && (isNewText || !this.box.value)) {
        this.box.value = pieces[0].isEnd ? "" : GPT.suggest.otherText(this.model, textOf(pieces), pieces);
      }
      const other = this.model.tokenizer.encode(this.box.value).slice(-this.model.config.max_seq_len);
      const shown = `${this.text}|${other.join()}`;
      if (shown === this.shown) return;
      Object.assign(this, { shown, pieces, tokens: Array.from(tokens), other: Array.from(other), chosen: null, patchedRun: null, ends: null });
      clearTimeout(this.timer);
      GPT.jobs.stop("patching.cells");
      GPT.jobs.stop("patching.cell");
      this.effects.clear();
      const why = this.refusal();
      this.message.textContent = why;
      this.result.hidden = this.sentence.hidden = Boolean(why);
      if (why) return;
      this.build();
      this.say();
      this.timer = setTimeout(() => this.isInView && this.measure(), PAUSE);
    },

    /** Why these two texts cannot be patched, or "". */
    refusal() {
      const [T, S] = [this.tokens.length, this.other.length];
      const [need, found] = [`a second text of ${T} ${T > 1 ? "tokens" : "token"}`, this.isOwn || this.pieces[0].isEnd];
      if (!S) return found ? `Write ${need}, of which at least one differs from yours.` : `No word was found to put in the place of one of yours with as many tokens. Write ${need} yourself.`;
      if (T !== S) return `Your text has ${T} tokens and the other ${S}. Every vector needs its counterpart, so write a text of ${T} tokens.`;
      return GPT.patching.commonStart(this.tokens, this.other) === T ? "Both texts are the same: change a word in one of them." : "";
    },

    build() {
      const { num_layers: L } = this.model.config;
      const start = GPT.patching.commonStart(this.tokens, this.other);
      const columns = this.tokens.map((_, t) => t).slice(start);
      const heads = columns.map((t) => {
        const other = this.tokens[t] !== this.other[t] && GPT.app.piece(this.other[t]);
        return [html("span", { class: "token" }, visible(this.pieces[t], 10)), other && html("span", { class: "token is-other" }, visible(other, 10))];
      });
      const rows = Array.from({ length: L + 1 }, (_, row) => ({
        head: row < L ? `before ${row + 1}` : `after ${L}`,
        cells: columns.map((t) => ({ key: `${row}.${t}`, name: `${rowName(row, L)}, ${spoken(this.pieces[t])}` })),
      }));
      this.board.build(["layer", ...heads], rows);
      for (const { cells } of rows) for (const { key } of cells) this.board.get(key).setAttribute("aria-pressed", "false");
      this.point(null);
      this.answers.show(this.runs());
    },

    /** All cells, one after another; they appear as they are computed. */
    measure() {
      if (!this.tokens || this.result.hidden || this.effects.size) return;
      GPT.jobs.ask("patching.cells", { tokens: this.tokens, other: this.other }, (found) => {
        if (found?.ends) this.ends = found.ends;
        if (found?.effect !== undefined) this.effects.set(`${found.row}.${found.t}`, found.effect);
        if (!found || found.ends) this.show();
        else this.shade(`${found.row}.${found.t}`);
      });
    },

    shade(key) {
      const effect = this.effects.get(key);
      this.board.shade(key, effect, Math.abs(effect) < 0.005 ? "0" : number(100 * effect, 0));
    },

    /** After the first and the last result: the bars and the sentence. The cell with the largest effect is chosen then. */
    show() {
      this.answers.show(this.runs(), this.ends ? this.ends.tokens : []);
      this.say();
    },

    runs() {
      const own = GPT.ablation.logProbs(GPT.app.state.trace.logits(this.tokens.length - 1));
      if (!this.ends) return [own];
      const [base, other] = this.ends.logProbs;
      return [base, this.patchedRun, other];
    },

    press(key) {
      const isSame = this.chosen === key;
      if (this.chosen) this.board.get(this.chosen).setAttribute("aria-pressed", "false");
      this.chosen = isSame ? null : key;
      this.patchedRun = null;
      if (isSame) {
        this.show();
        return;
      }
      this.board.get(key).setAttribute("aria-pressed", "true");
      const [row, t] = key.split(".").map(Number);
      GPT.jobs.ask("patching.cell", { tokens: this.tokens, other: this.other, row, t }, (found) => {
        if (!found) return;
        this.patchedRun = found;
        this.show();
      });
    },

    point(key) {
      if (!key) {
        this.readout.textContent = "Each number: how far the answer moves, in percent of the way to the other text's answer. Press a cell to patch it.";
        return;
      }
      const [row, t] = key.split(".").map(Number);
      const effect = this.effects.get(key);
      const moved = effect === undefined ? "not computed yet" : `the answer moves ${number(100 * effect, 1)}% of the way`;
      this.readout.replaceChildren(`${rowName(row, this.model.config.num_layers)}, at `, chip(this.pieces[t]), `: ${moved}`);
    },

    say() {
      if (!this.ends) {
        this.sentence.replaceChildren("Scroll here, and every cell is computed.");
        return;
      }
      const [a, b] = this.ends.tokens.map((id) => GPT.app.piece(id));
      const [p, q] = this.ends.logProbs;
      const share = (run, piece) => percent(Math.exp(run[piece.id]));
      if (this.chosen && this.patchedRun) {
        const [row, t] = this.chosen.split(".").map(Number);
        const effect = this.effects.get(this.chosen);
        this.sentence.replaceChildren(
          `With one vector of the other text, ${inText(row, this.model.config.num_layers)} at `, chip(this.pieces[t]), ", ", chip(a), ` goes from ${share(p, a)} to ${share(this.patchedRun, a)} and `, chip(b),
          ` from ${share(p, b)} to ${share(this.patchedRun, b)}.`, effect === undefined ? "" : ` That is ${number(100 * effect, 0)}% of the way.`);
        return;
      }
      this.sentence.replaceChildren(
        "The texts differ most in two tokens: ", chip(a), ` gets ${share(p, a)} after your text and ${share(q, a)} after the other, `, chip(b),
        ` ${share(p, b)} and ${share(q, b)}. The answer here is how far the first is ahead: its logit minus the other's.`);
    },
  });

  const textOf = (pieces) => GPT.model.tokenizer.decode(pieces.map(({ id }) => id));
  const rowName = (row, L) => (row < L ? `before layer ${row + 1}` : `after layer ${L}`);
  const inText = (row, L) => `put in ${rowName(row, L)}`;
})();
