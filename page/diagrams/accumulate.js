// Gradient accumulation on the reader's own text: micro-batch by micro-batch, until .grad is the gradient of the whole batch.

var GPT = GPT || {};
(() => {
  "use strict";
  const { html, chip, number, count, largest } = GPT.draw;
  const { slider, button } = GPT.charts;
  const { lossGradients, accumulated, cosine } = GPT.training;
  const [FEWEST, MOST, WORK] = [4, 64, 1.5e8]; // tokens; multiplications allowed per change of the text

  GPT.diagram("accumulate", {
    mount(element, model) {
      Object.assign(this, { model, size: 4, done: 0, tokens: null });
      this.most = Math.max(FEWEST, Math.min(MOST, Math.floor(WORK / (model.config.vocab_size * model.config.d_model))));
      this.sizes = slider("Tokens in a micro-batch", { min: 1, max: 2 }, (size) => {
        Object.assign(this, { size, done: 0 });
        GPT.app.set({});
      });
      this.steps = slider("Micro-batches done", { max: 1 }, (done) => { this.done = done; GPT.app.set({}); });
      this.next = button("Next micro-batch", () => {
        this.done = this.done < this.groups().length ? this.done + 1 : 0;
        GPT.app.set({});
      });
      this.batches = html("div", { class: "micro-batches" });
      this.strips = GPT.parts.strips("The gradients, number by number");
      const controls = html("div", { class: "controls" }, this.sizes.element, this.steps.element, this.next);
      element.append(controls, this.batches, this.strips.element);
    },

    update({ trace, pieces, tokens }) {
      if (tokens !== this.tokens) {
        this.tokens = tokens;
        this.pieces = pieces.slice(0, this.most + 1);
        Object.assign(this, lossGradients(this.model, trace, this.pieces.length));
        this.done = 0;
        this.sizes.limit(1, Math.max(1, this.losses.length));
        this.size = Math.max(1, Math.min(this.size, this.losses.length));
      }
      return this.draw();
    },

    /** The positions of the tokens in each micro-batch. */
    groups() {
      const found = [];
      this.losses.forEach((_, position) => {
        if (position % this.size === 0) found.push([]);
        found.at(-1).push(position);
      });
      return found;
    },

    draw() {
      const groups = this.groups();
      this.strips.element.hidden = !groups.length;
      if (!groups.length) {
        this.batches.replaceChildren();
        return "A single token has no next token to predict. Type a longer text.";
      }
      this.sizes.show(this.size);
      this.done = Math.min(this.done, groups.length);
      this.steps.limit(0, groups.length);
      this.steps.show(this.done);
      this.next.textContent = this.done < groups.length ? "Next micro-batch" : "Clear and start again";
      this.batches.replaceChildren(...groups.map((positions, i) => html("div", {
        class: `micro-batch${i < this.done ? " is-done" : ""}${i === this.done - 1 ? " is-chosen" : ""}`,
      }, positions.map((t) => html("span", {}, chip(this.pieces[t + 1]), html("small", {}, number(this.losses[t])))))));

      const N = this.losses.length;
      const whole = accumulated(this.gradients, N);
      const parts = groups.map((positions) => accumulated(positions.map((t) => this.gradients[t]), N));
      const nothing = new Float32Array(whole.length);
      const grad = parts.slice(0, this.done).reduce((sum, part) => sum.map((x, i) => x + part[i]), nothing);
      const last = this.done ? parts[this.done - 1] : nothing;
      const rows = [["this micro-batch", last], [".grad, the sum so far", grad], ["the whole batch", whole]];
      const most = largest(whole, ...parts);
      this.strips.show(rows.map(([label, values]) => ({ label, values, most })), (c) =>
        `Number ${c + 1} of ${count(whole.length)}: ${rows.map(([label, values]) => `${label} ${number(values[c], 4)}`).join("; ")}.`);

      const loss = this.losses.reduce((sum, x) => sum + x, 0) / N;
      const [done, all] = [count(this.done), count(groups.length)];
      if (!this.done) {
        const text = N + 1 < this.tokens.length ? "The beginning of your text" : "Your text";
        return `${text} is a batch of ${count(N)} predictions in ${all} micro-batches. Its loss is ${number(loss)} nats per token. No gradient has been added yet.`;
      }
      const off = grad.reduce((most, x, i) => Math.max(most, Math.abs(x - whole[i])), 0);
      const same = off === 0 ? "to the last bit" : `to ${off.toExponential(0).replace("-", "−")}, which is rounding`;
      if (this.done < groups.length) {
        return `After ${done} of ${all} micro-batches, .grad points in nearly the same direction as the gradient of the whole batch: by a cosine of ${number(cosine(grad, whole))}.`;
      }
      return `All micro-batches are done. The sum is the whole batch's gradient ${same}. Now the optimizer takes its step, and .grad is cleared.`;
    },
  });
})();
