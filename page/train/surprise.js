// The loss of single predictions: for each token of the reader's text, minus the logarithm of the probability that the model
// gave to it before it came.

var GPT = GPT || {};
(() => {
  "use strict";
  const { html, svg, chip, number, percent, visible, spoken } = GPT.draw;
  const [WIDTH, HEIGHT, LEFT, LOW] = [340, 210, 34, 176];
  const TALLEST = 8; // nats at the upper end of the curve and of the columns

  GPT.diagram("loss", {
    mount(element, model) {
      this.model = model;
      this.columns = html("div", { class: "loss-columns", role: "listbox", "aria-label": "Tokens with their loss: choose one" });
      GPT.parts.roving(this.columns, () => Array.from(this.columns.children), (index) => GPT.app.set({ token: index, key: null }));
      this.plot = svg("svg", { class: "plot", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": "The loss by the probability of the right token" });
      this.steps = html("dl", { class: "steps" });
      element.append(html("div", { class: "scroll" }, this.columns), html("div", { class: "columns" }, this.plot, this.steps));
    },

    update(state) {
      const { tokens, pieces } = state;
      const losses = tokens.slice(1).map((token, t) => -Math.log(state.next(t)[token]));
      const hadFocus = this.columns.contains(document.activeElement);
      const at = Math.min(state.token, losses.length - 1);
      this.columns.hidden = this.plot.hidden = this.steps.hidden = !losses.length;
      if (!losses.length) return "A single token has no next token to predict. Type a longer text.";
      this.columns.replaceChildren(...losses.map((loss, t) => html("button", { type: "button", role: "option", tabindex: t === at ? 0 : -1,
        "aria-selected": String(t === at), "aria-label": `${spoken(pieces[t + 1])}: ${number(loss)} nats`, onclick: () => GPT.app.set({ token: t, key: null }) },
        html("small", {}, number(loss, 1)), html("span", { class: "loss-bar", style: `height: ${(Math.min(loss, 12) * 0.5).toFixed(2)}rem` }),
        html("span", { class: "token" }, visible(pieces[t + 1], 12)))));
      if (hadFocus) this.columns.children[at].focus({ preventScroll: true });
      const p = Math.exp(-losses[at]);
      this.drawCurve(losses, at);
      this.steps.replaceChildren(...[
        ["probability p of the token that came", percent(p)], ["ln p, its natural logarithm", number(Math.log(p))], ["loss = −ln p, in nats", number(losses[at])],
      ].map(([name, value]) => html("div", {}, html("dt", {}, name), html("dd", {}, value))));
      const mean = losses.reduce((sum, loss) => sum + loss, 0) / losses.length;
      return ["After ", chip(pieces[at]), " came ", chip(pieces[at + 1]), `, and the model had given it ${percent(p)}. Over the whole text the mean loss is ${number(mean)} nats per token: `
        + `as unsure as if it had to choose among ${number(Math.exp(mean), Math.exp(mean) < 10 ? 1 : 0)} equally likely tokens at each step.`];
    },

    /** The curve -ln p, with a dot for each token. */
    drawCurve(losses, at) {
      const [x, y] = [(p) => LEFT + p * (WIDTH - LEFT - 10), (loss) => LOW - (Math.min(loss, TALLEST) / TALLEST) * (LOW - 8)];
      const curve = Array.from({ length: 200 }, (_, i) => Math.exp(-TALLEST * (1 - i / 199) ** 2));
      const dots = losses.map((loss, t) => svg("circle", { class: t === at ? "spot" : "dot", r: t === at ? 6 : 4, cx: x(Math.exp(-loss)), cy: y(loss) }));
      this.plot.replaceChildren(
        svg("path", { class: "axis", d: `M${LEFT} 8V${LOW}H${WIDTH - 10}` }),
        ...[0, 2, 4, 6, 8].map((loss) => svg("text", { x: LEFT - 6, y: y(loss) + 4, "text-anchor": "end" }, `${loss}`)),
        ...[0, 0.25, 0.5, 0.75, 1].map((p) => svg("text", { x: x(p), y: LOW + 16, "text-anchor": "middle" }, `${100 * p}%`)),
        svg("text", { x: WIDTH - 10, y: HEIGHT - 2, "text-anchor": "end" }, "probability of the token that came"),
        svg("text", { x: LEFT + 6, y: 14 }, "loss in nats"),
        svg("path", { class: "line", d: curve.map((p, i) => `${i ? "L" : "M"}${x(p).toFixed(1)} ${y(-Math.log(p)).toFixed(1)}`).join("") }),
        ...dots, dots[at]);
    },
  });
})();
