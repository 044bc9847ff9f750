// Measured tokens per second with and without the cache, from the benchmark's result file.

var GPT = GPT || {};
(() => {
  "use strict";
  const { html, count, number } = GPT.draw;
  const { chart, bytes } = GPT.charts;

  GPT.diagram("speed", {
    mount(element) {
      this.measured = GPT.data.generation;
      if (!this.measured) { // without measurements, the figure is hidden
        element.closest("figure").hidden = true;
        return;
      }
      this.at = this.measured.points.length - 1;
      this.chart = chart("Tokens per second by length of the text", (index) => { this.at = index; GPT.app.set({}); });
      element.append(this.chart.element);
    },

    update() {
      if (!this.measured) return "";
      const { points, model, device, threads, torch, prompt_tokens: prompt, command } = this.measured;
      const across = points.map(({ length }) => length);
      const curve = (name, style, label) => [
        { label, style, points: points.map((point) => [point.length, point[name]]) },
        { style, isDots: true, points: points.map((point) => [point.length, point[name]]) }];
      const from = Math.min(...across);
      this.chart.show({
        x: { label: "length of the text, tokens", from: from * 0.9, to: Math.max(...across) * 1.05, isLog: true, ticks: across },
        y: { label: "tokens per second", from: 0, to: Math.max(...points.map(({ cached }) => cached)) * 1.08 },
        lines: [...curve("uncached", "other", "without the cache"), ...curve("cached", "main", "with the cache")],
        stops: across, at: this.at,
        describe: (i) => `${count(points[i].length)} tokens: ${count(Math.round(points[i].cached))} tokens per second with the cache, ` +
          `${count(Math.round(points[i].uncached))} without it. The cache takes ${bytes(points[i].cache_bytes)}.`,
      });
      const { length, speedup } = points[this.at];
      return [`A text of ${count(length)} tokens is generated ${number(speedup, 1)} times as fast with the cache. Measured with `,
        html("code", {}, command), `: ${model}, on ${device === "cpu" ? `${threads} CPU threads` : device}, PyTorch ${torch}, ` +
          `from a prompt of ${count(prompt)} token${prompt === 1 ? "" : "s"}.`];
    },
  });
})();
