// Words and numbers about the model at hand, for the text of the page: <span data-fact="width"></span>.

var GPT = GPT || {};
(() => {
  "use strict";
  const { count, percent } = GPT.draw;

  const TRAINED_ON = {
    shakespeare: "the plays of Shakespeare, and from nothing else",
    fineweb: "FineWeb-Edu, a collection of educational web pages",
  };
  const BENDS = {
    gelu: "This model bends with GELU: x times the share of a normal distribution that lies below x.",
    gelu_tanh:
      "This model bends with GELU, x times the share of a normal distribution that lies below x, in GPT-2's approximation.",
    relu: "This model bends with ReLU: what is below 0 becomes 0.",
    swiglu: "This model uses it.",
  };

  GPT.facts = (model) => {
    const { config, about, weights } = model;
    const { exported } = GPT;
    const sizes = Object.entries(weights).map(([name, weight]) => [name, weight.length]);
    const sum = (part) => sizes.reduce((all, [name, size]) => all + (name.includes(part) ? size : 0), 0);
    return {
      trainedOn:
        TRAINED_ON[about.dataset] ||
        (about.dataset ? `a text called ${about.dataset}` : "a text that its owner has chosen"),
      parameters: count(sum("")),
      vocabulary: count(config.vocab_size),
      width: count(config.d_model),
      hidden: count(config.d_ff),
      context: count(config.max_seq_len),
      layers: config.num_layers === 1 ? "1 block" : `${config.num_layers} blocks`,
      heads: count(config.num_heads),
      headWidth: count(model.headDim),
      grouped:
        config.kv_heads === config.num_heads
          ? ""
          : `Keys and values have ${config.kv_heads === 1 ? "one head only, which all share" : `${config.kv_heads} heads only, which neighbours share`}: this saves memory.`,
      bend: BENDS[config.activation],
      feedforwardShare: percent(sum(".feedforward.") / sum("")),
      norm:
        config.norm === "rmsnorm"
          ? "This model's is RMSNorm. It does what the layer norm below does, but leaves the mean in and has no bias."
          : `Layer norm takes away the mean of the vector's numbers and divides by their spread. Then each number has a weight${config.bias ? " and a bias" : ""} of its own, which ${config.bias ? "are" : "is"} learned.`,
      encoding:
        exported.tokenizer.kind === "byte"
          ? "This model does without: it reads single bytes, and its vocabulary is those 256 and one entry for the end of a text."
          : "",
      tied: weights["head.weight"]
        ? "In this model those rows stand in a table of their own."
        : "In this model those rows are the token table of step 1 once more, read backwards: a vector that points like a token's row makes that token likely.",
    };
  };
})();
