// Charts with a movable cursor, and sliders, for the chapters on training, generation and sampling. Both work with the
// pointer and the keyboard.

var GPT = GPT || {};
(() => {
  "use strict";
  const { html, svg } = GPT.draw;
  const MARGIN = { top: 14, right: 16, bottom: 40, left: 46 };

  /** A labelled slider with its value beside it: slider("top-k", { min, max, step, text: (value) => "..." }, onchange).
   *  `steps` in place of min, max and step: the values themselves. show(value) moves it. */
  function slider(name, { min = 0, max, step = 1, steps = null, text = (value) => `${value}` }, onchange) {
    const output = html("output", { class: "slider-value" });
    const range = steps ? { min: 0, max: steps.length - 1, step: 1 } : { min, max, step };
    const input = html("input", { type: "range", ...range });
    const value = () => (steps ? steps[Number(input.value)] : Number(input.value));
    const announce = () => { output.textContent = text(value()); input.setAttribute("aria-valuetext", output.textContent); };
    input.addEventListener("input", () => { announce(); onchange(value()); });
    const element = html("label", { class: "slider" }, html("span", {}, name), input, output);

    function show(to) {
      if (!steps) input.value = to;
      else input.value = steps.reduce((best, at, i) => (Math.abs(at - to) < Math.abs(steps[best] - to) ? i : best), 0);
      announce();
    }
    /** Sets the range, which may depend on the text. */
    function limit(from, to) {
      [input.min, input.max] = [from, to];
      announce();
    }
    return { element, input, show, limit };
  }

  /** A button of a diagram. */
  const button = (name, onclick) => html("button", { type: "button", class: "action", onclick }, name);

  /** Round numbers from `from` to `to`, about `most` of them. */
  function ticks(from, to, most) {
    const rough = (to - from) / most;
    const power = 10 ** Math.floor(Math.log10(rough));
    const unit = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough * 0.999);
    const found = [];
    for (let i = Math.ceil(from / unit - 1e-9); i * unit <= to + unit * 1e-9; i += 1) {
      found.push(Number((i * unit).toPrecision(10))); // 0.6, not 0.6000000000000001
    }
    return found;
  }

  /** A chart in which the reader moves a cursor from stop to stop; each move calls onmove(index). show({ x, y, lines, ... }):
   *  x, y: { label, from, to, isLog?, ticks?, text? };
   *  lines: [{ label?, points: [[x, y]], style: "main" | "other" | "third", isDots? }];
   *  stops: the x values of the cursor; at: the index of the current one; describe(index): its values in words;
   *  marks?: [{ x, y, label }]; levels?: [{ y, label }], lines across;
   *  above?: the x at which a curve is cut off at the top, because it is higher; hideAfter?: curves are pale beyond this x. */
  function chart(name, onmove, height = 250) {
    const drawing = svg("svg", { "aria-hidden": "true" });
    const [title, legend] = ["chart-title", "chart-legend"].map((kind) => html("p", { class: kind, "aria-hidden": "true" }));
    const output = html("p", { class: "readout" });
    const box = html("div", { class: "chart", role: "slider", tabindex: 0, "aria-label": name, "aria-valuemin": 1 }, drawing);
    let [shown, width] = [null, 0];

    function choose(index) {
      const to = Math.max(0, Math.min(shown.stops.length - 1, index));
      if (to === shown.at) return;
      show({ ...shown, at: to });
      onmove(to);
    }
    function point({ clientX }) {
      const across = scale(shown.x, MARGIN.left, width - MARGIN.right);
      const x = clientX - box.getBoundingClientRect().left;
      const off = shown.stops.map((stop) => Math.abs(across(stop) - x));
      choose(off.indexOf(Math.min(...off)));
    }
    box.addEventListener("pointermove", point);
    box.addEventListener("pointerdown", point);
    box.addEventListener("keydown", (event) => {
      const { at, stops } = shown;
      const to = { ArrowLeft: at - 1, ArrowDown: at - 1, ArrowRight: at + 1, ArrowUp: at + 1, PageDown: at - 10,
        PageUp: at + 10, Home: 0, End: stops.length - 1 }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      choose(to);
    });
    new ResizeObserver(() => { if (shown && box.clientWidth !== width) show(shown); }).observe(box);

    function show(given) {
      [shown, width] = [given, box.clientWidth || 320];
      for (const [key, value] of Object.entries({ width, height, viewBox: `0 0 ${width} ${height}` })) drawing.setAttribute(key, value);
      drawing.replaceChildren(...picture(given, width, height));
      title.textContent = given.y.label;
      legend.replaceChildren(...samples(given.lines));
      output.textContent = given.describe(given.at);
      box.setAttribute("aria-valuemax", given.stops.length);
      box.setAttribute("aria-valuenow", given.at + 1);
      box.setAttribute("aria-valuetext", output.textContent);
    }
    return { element: html("div", { class: "chart-box" }, title, box, legend, output), show };
  }

  /** The parts of a chart: axes, cursor, curves, marks, and spots where the cursor meets a curve. */
  function picture({ x, y, lines, marks = [], levels = [], above = [], stops, at, hideAfter = Infinity }, width, height) {
    const [left, right, low] = [MARGIN.left, width - MARGIN.right, height - MARGIN.bottom];
    const [across, up] = [scale(x, left, right), scale(y, low, MARGIN.top)];
    const cursor = across(stops[at]);
    const spots = lines.filter(({ isDots }) => !isDots).flatMap(({ style, points }) =>
      points.filter(([px]) => px === stops[at]).map(([, py]) =>
        svg("circle", { class: `chart-spot is-${style}`, r: 5, cx: cursor, cy: up(py) })));
    return [
      axes(x, y, across, up, { left, right, low, height }),
      ...levels.map((level) => svg("g", { class: "chart-level" },
        svg("line", { x1: left, x2: right, y1: up(level.y), y2: up(level.y) }),
        svg("text", { x: right, y: up(level.y) - 5, "text-anchor": "end" }, level.label))),
      svg("line", { class: "chart-cursor", x1: cursor, x2: cursor, y1: MARGIN.top, y2: low }),
      ...lines.flatMap((line) => curve(line, across, up, hideAfter)),
      ...(above.length ? [cutOff(above.map(across), y, left + right)] : []),
      ...marks.map((mark) => svg("g", { class: "chart-mark", transform: `translate(${across(mark.x)} ${up(mark.y)})` },
        svg("circle", { r: 5 }), svg("text", { x: -4, y: 20, "text-anchor": "end" }, mark.label))),
      ...spots,
    ];
  }

  function curve({ points, style, isDots }, across, up, limit) {
    if (isDots) return points.map(([px, py]) => svg("circle", { class: `chart-dot is-${style}`, r: 4, cx: across(px), cy: up(py) }));
    const path = (some) => some.map(([px, py], i) => `${i ? "L" : "M"}${across(px).toFixed(1)} ${up(py).toFixed(1)}`).join("");
    const done = points.filter(([px]) => px <= limit);
    const line = (some, more) => svg("path", { class: `chart-line is-${style}${more}`, d: path(some) });
    return done.length < points.length ? [line(points, " is-later"), line(done, "")] : [line(points, "")];
  }

  /** Arrows at the top edge, where a curve leaves the chart, and once in words. */
  function cutOff(places, y, width) {
    const [first, top] = [places[0], MARGIN.top];
    const isLeft = first < width / 2;
    const arrow = (x) => `M${x - 4} ${top}L${x} ${top - 7}L${x + 4} ${top}Z`;
    const apart = places.filter((x, i) => i === 0 || x - first > 150); // beside the words
    return svg("g", { class: "chart-above" }, svg("path", { d: apart.map(arrow).join("") }),
      svg("text", { x: first + (isLeft ? 8 : -8), y: top - 4, "text-anchor": isLeft ? "start" : "end" }, `above ${(y.text || String)(y.to)}, off this chart`));
  }

  function axes(x, y, across, up, { left, right, low, height }) {
    const columns = x.ticks || ticks(x.from, x.to, right - left < 420 ? 4 : 8);
    const rows = y.ticks || ticks(y.from, y.to, 5);
    return svg("g", { class: "chart-axes" },
      rows.flatMap((value) => [
        svg("line", { x1: left, x2: right, y1: up(value), y2: up(value) }),
        svg("text", { x: left - 7, y: up(value) + 4, "text-anchor": "end" }, (y.text || String)(value)),
      ]),
      columns.map((value) => svg("text", { x: across(value), y: low + 17, "text-anchor": "middle" }, (x.text || String)(value))),
      svg("text", { x: right, y: height - 4, "text-anchor": "end" }, x.label));
  }

  /** The legend: a sample of each line with its label. */
  function samples(lines) {
    return lines.filter(({ label }) => label).map(({ label, style, isDots }) => html("span", {},
      svg("svg", { width: 26, height: 12, "aria-hidden": "true" }, isDots
        ? svg("circle", { class: `chart-dot is-${style}`, r: 4, cx: 13, cy: 6 })
        : svg("line", { class: `chart-line is-${style}`, x1: 1, x2: 25, y1: 6, y2: 6 })), label));
  }

  /** A function from values to pixels between a and b, on a linear or a logarithmic axis. */
  function scale({ from, to, isLog }, a, b) {
    const f = isLog ? Math.log : (value) => value;
    return (value) => a + ((f(value) - f(from)) / (f(to) - f(from))) * (b - a);
  }

  /** Bytes as text: 65,536 bytes, 1.3 MB. */
  function bytes(size) {
    const units = [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]];
    const [unit, one] = units.find(([, least]) => size >= 0.9995 * least) || ["bytes", 1];
    return one === 1 ? `${size} bytes` : `${(size / one).toFixed(1)} ${unit}`;
  }

  /** A large number in short: 1.5 million. */
  function short(value) {
    const units = [["trillion", 1e12], ["billion", 1e9], ["million", 1e6]];
    const [unit, one] = units.find(([, least]) => value >= 0.9995 * least) || ["", 1];
    return one === 1 ? GPT.draw.count(Math.round(value)) : `${(value / one).toPrecision(3)} ${unit}`;
  }

  GPT.charts = { chart, slider, button, bytes, short, ticks };
})();
