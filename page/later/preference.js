// Learning from a preference: of two continuations, one is preferred. The loss falls as the model makes it more likely,
// relative to what it said before (arXiv 2305.18290). Here the two logits are moved by hand.

var GPT = GPT || {};
(() => {
  "use strict";
  const { html, chip, number, best } = GPT.draw;
  const BETA = 0.5;

  GPT.diagram("preference", {
    mount(element) {
      Object.assign(this, { preferred: 1, margin: 2, pair: [0, 1] });
      this.choice = html("div", {});
      this.slider = GPT.charts.slider("move the two logits apart by", { min: -4, max: 8, step: 0.25, text: (m) => number(m) }, (m) => { this.margin = m; this.show(); });
      this.slider.show(this.margin);
      this.answers = GPT.compared.answers("The next token, before and after learning the preference", ["before", "after"]);
      this.sentence = html("p", { class: "later-sentence" });
      element.append(html("div", { class: "controls" }, this.choice, this.slider.element), this.answers.element, this.sentence);
    },

    update(state) {
      this.clean = GPT.ablation.logProbs(state.trace.logits(state.token));
      this.pair = best(this.clean, 2);
      const names = this.pair.map((id) => GPT.draw.visible(GPT.app.piece(id), 14));
      const choice = GPT.parts.choice("You prefer", names, (index) => { this.preferred = index; this.show(); });
      choice.show(this.preferred);
      if (names.join() !== this.names) this.choice.replaceChildren(choice.element);
      this.names = names.join();
      this.show();
    },

    show() {
      const [good, bad] = this.preferred ? [this.pair[1], this.pair[0]] : this.pair;
      const logits = this.clean.slice();
      logits[good] += this.margin / 2;
      logits[bad] -= this.margin / 2;
      this.answers.show([this.clean, GPT.ablation.logProbs(logits)], [good, bad]);
      const loss = Math.log1p(Math.exp(-BETA * this.margin));
      this.sentence.replaceChildren(
        "The pair: ", chip(GPT.app.piece(good)), " is preferred to ", chip(GPT.app.piece(bad)),
        `. The loss changes from ${number(Math.LN2, 3)} to ${number(loss, 3)}. All tokens but these two keep their proportions.`);
    },
  });
})();
