// The page's model beside models whose shapes are public.

var GPT = GPT || {};
(() => {
  "use strict";
  const { html, count, number } = GPT.draw;

  /** 1,071,872 as "1.07 M", 405 billion as "405 B". */
  function short(value) {
    const [unit, name] = [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "k"]].find(([size]) => value >= size) || [1, ""];
    const scaled = value / unit;
    return `${number(scaled, scaled >= 99.5 || Number.isInteger(scaled) ? 0 : scaled >= 9.95 ? 1 : 2)} ${name}`.trim();
  }

  function own(model) {
    const { config, about, weights } = model;
    const parameters = Object.values(weights).reduce((sum, { length }) => sum + length, 0);
    const places = { learned: "learned positions", sinusoidal: "sinusoidal positions", rotary: "rotary", alibi: "ALiBi" };
    const parts = [places[config.position], config.norm === "rmsnorm" ? "RMSNorm" : "layer norm", config.activation === "swiglu" ? "SwiGLU" : config.activation.startsWith("gelu") ? "GELU" : "ReLU"];
    return { name: "this page's model", layers: config.num_layers, width: config.d_model, heads: config.num_heads, kvHeads: config.kv_heads,
      context: config.max_seq_len, vocabulary: config.vocab_size, parameters, tokens: about.tokens_seen || null, parts: parts.join(", ") };
  }

  const LINES = [
    ["parameters", (each) => short(each.parameters) + (each.active ? `, of which ${short(each.active)} active` : "")],
    ["training tokens", (each) => (each.tokens ? short(each.tokens) : "not published")],
    ["layers", (each) => count(each.layers)],
    ["width", (each) => count(each.width)],
    ["heads: queries / keys, values", (each) => `${each.heads} / ${each.kvHeads ?? "one shared latent vector"}`],
    ["context, in tokens", (each) => count(each.context)],
    ["vocabulary", (each) => count(each.vocabulary)],
    ["parts", (each) => each.parts],
  ];

  GPT.diagram("scale", {
    mount(element, model) {
      const models = [own(model), ...GPT.known];
      const [least, most] = [1e5, Math.max(...models.map(({ parameters }) => parameters))];
      const bar = ({ parameters }) => Math.max(1, (100 * Math.log(parameters / least)) / Math.log(most / least));
      const name = (each) => (each.paper ? html("a", { href: `https://arxiv.org/abs/${each.paper}` }, each.name) : each.name);
      const head = models.map((each) => html("th", { scope: "col" }, name(each), each.year && html("small", {}, `${each.year}`)));
      const line = ([title, value]) => html("tr", {}, html("th", { scope: "row" }, title), models.map((each) =>
        html("td", {}, value(each), title === "parameters" && html("span", { class: "scale-bar", style: `width: ${bar(each)}%` }))));
      const table = html("table", { class: "scale-table" }, html("thead", {}, html("tr", {}, html("td", {}), head)), html("tbody", {}, LINES.map(line)));
      element.append(html("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Sizes of known models" }, table));
    },
    update() {},
  });

})();
