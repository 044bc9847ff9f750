// The cost of each new token with and without the cache, counted for this model.

var GPT = GPT || {};
(() => {
  "use strict";
  const { html, svg, count, number } = GPT.draw;
  const { chart, slider, short } = GPT.charts;
  const { work } = GPT.generation;

  GPT.diagram("work", {
    mount(element, model) {
      Object.assign(this, { model, fresh: 32, at: 0, prompt: 0 });
      this.length = slider("New tokens", { min: 1, max: 2 }, (fresh) => {
        Object.assign(this, { fresh, at: fresh - 1 });
        GPT.app.set({});
      });
      this.chart = chart("Work so far, by new token", (index) => { this.at = index; GPT.app.set({}); });
      this.grids = html("div", { class: "columns" });
      element.append(html("div", { class: "controls" }, this.length.element), this.grids, this.chart.element);
    },

    update({ tokens }) {
      const { config } = this.model;
      const prompt = Math.max(1, Math.min(tokens.length, config.max_seq_len - 1));
      const most = Math.max(1, config.max_seq_len - prompt);
      if (prompt !== this.prompt) {
        this.prompt = prompt;
        this.at = Infinity;
      }
      this.length.limit(1, most);
      const fresh = Math.min(this.fresh, most);
      this.length.show(fresh);
      this.at = Math.min(this.at, fresh - 1);
      const each = work(config, prompt, fresh);
      const sums = { cached: sumsOf(each.map(({ cached }) => cached)), uncached: sumsOf(each.map(({ uncached }) => uncached)) };
      const line = (name, style, label) => ({ label, style, points: sums[name].map((sum, i) => [i + 1, sum]) });
      this.chart.show({
        x: { label: "new token", from: 1, to: Math.max(2, fresh) },
        y: { label: "multiply-adds so far", from: 0, to: sums.uncached[fresh - 1], text: axis },
        lines: [line("uncached", "other", "without the cache"), line("cached", "main", "with the cache")],
        stops: each.map((_, i) => i + 1), at: this.at,
        describe: (i) => `New token ${i + 1}: ${short(each[i].cached)} multiply-adds with the cache, ${short(each[i].uncached)} ` +
          `without it. So far ${short(sums.cached[i])} and ${short(sums.uncached[i])}.`,
      });
      this.showGrids(prompt, fresh);
      const ratio = sums.uncached[this.at] / sums.cached[this.at];
      const runs = prompt + this.at;
      const uncachedRuns = ((this.at + 1) * (2 * prompt + this.at)) / 2;
      return `For ${count(this.at + 1)} new ${this.at ? "tokens" : "token"} after your ${count(prompt)}, ${count(runs)} ` +
        `${runs === 1 ? "token runs" : "tokens run"} through the model with the cache, and ${count(uncachedRuns)} without it: ` +
        (this.at ? `${number(ratio, 1)} times the work.` : "the same work. The first new token needs the whole prompt in both cases.");
    },

    showGrids(prompt, fresh) {
      const columns = prompt + fresh - 1;
      const picture = (title, isCached) => {
        const runs = Array.from({ length: fresh }, (_, i) => {
          const seen = prompt + i;
          const computed = isCached && i ? 1 : seen;
          return [
            svg("rect", { class: "work-kept is-key", x: 0, y: i + 0.06, width: seen - computed, height: 0.44 }),
            svg("rect", { class: "work-kept is-value", x: 0, y: i + 0.5, width: seen - computed, height: 0.44 }),
            svg("rect", { class: "work-done", x: seen - computed, y: i + 0.06, width: computed, height: 0.88 }),
          ];
        });
        const inWords = isCached ? "after the first row, one token in each row is computed, the others are read from the cache" : "in each row all tokens are computed again";
        return html("div", {}, html("h4", {}, title), svg("svg", {
          class: "work-grid", viewBox: `0 0 ${columns} ${fresh}`, preserveAspectRatio: "none", role: "img",
          "aria-label": `${title}: ${inWords}`,
        }, runs.flat(), svg("rect", { class: "work-now", x: 0, y: this.at, width: columns, height: 1 })));
      };
      this.grids.replaceChildren(picture("without the cache", false), picture("with the cache", true));
    },
  });

  /** The sums of the first 1, 2, 3, ... values. */
  function sumsOf(values) {
    let sum = 0;
    return values.map((value) => (sum += value));
  }

  /** Numbers on an axis: 0, 50M, 1.5G. */
  function axis(value) {
    const [unit, one] = [["T", 1e12], ["G", 1e9], ["M", 1e6], ["k", 1e3]].find(([, least]) => value >= least) || ["", 1];
    return `${Number((value / one).toPrecision(3))}${unit}`;
  }
})();
