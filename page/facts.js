// Words and numbers about the model at hand, for the text of the page: <span data-fact="width"></span>.

var GPT = GPT || {};
(() => {
  "use strict";
  const { count, things, percent } = GPT.draw;

  const TRAINED_ON = {
    shakespeare: "the plays of Shakespeare, and from no other text",
    refrains: "the plays of Shakespeare, some of their words and lines repeated, and from no other text",
    fineweb: "FineWeb-Edu, a collection of educational web pages",
  };
  const GELU = "This model uses GELU, a smooth curve: large numbers pass almost unchanged, and numbers far below 0 become 0. Exactly: x times the area under the standard bell curve to the left of x";
  const ACTIVATIONS = {
    gelu: `${GELU}.`,
    gelu_tanh: `${GELU}, in GPT-2's approximation.`,
    relu: "This model uses ReLU: values below 0 become 0.",
    swiglu: "This model uses SwiGLU: f is SiLU, x times the logistic function of x, and the results multiply those of a second projection.",
  };

  const isStock = ({ dataset }) => ["shakespeare", "refrains"].includes(dataset); // refrains: the plays, and texts made of them

  /** The model's settings, as in <p data-when="norm=rmsnorm bias=no">, which is shown if all of them hold. */
  GPT.settings = ({ config, about, layers }) => ({
    dataset: isStock(about) ? "shakespeare" : "other",
    encoding: GPT.exported.tokenizer.kind,
    position: config.position,
    norm: config.norm,
    bias: config.bias ? "yes" : "no",
    "qkv-bias": layers[0]["attention.qkv.bias"] ? "yes" : "no",
    gated: config.activation === "swiglu" ? "yes" : "no",
  });

  /** How long the model was trained, and how good it is: its perplexity on texts that it has not seen. */
  function training({ step, tokens_seen: tokens, validation_loss: loss, validation }) {
    const measured = validation?.rounded?.loss ?? loss;
    const long = step && tokens ? `It was trained for ${count(step)} steps on ${count(tokens)} tokens. ` : "";
    if (!Number.isFinite(measured)) return `${long}How good it is was not measured.`;
    const choices = count(Number(Math.exp(measured).toPrecision(2)));
    return `${long}In a text that it has not seen, it is as uncertain about the next token as if it had to choose among ` +
      `${choices} equally likely ones: this is its perplexity, and its logarithm, ${measured.toFixed(2)}, is the validation loss.`;
  }

  GPT.facts = (model) => {
    const { config, about, weights } = model;
    const { exported } = GPT;
    const sizes = Object.entries(weights).map(([name, weight]) => [name, weight.length]);
    const sum = (part) => sizes.reduce((all, [name, size]) => all + (name.includes(part) ? size : 0), 0);
    return {
      title: isStock(about) || !about.dataset ? "How a GPT works" : `How a GPT works: a model trained on ${about.dataset}`,
      lede: isStock(about)
        ? "A small language model runs in this page."
        : `A language model with ${count(sum(""))} weights${about.dataset ? `, trained on ${about.dataset},` : ""} runs in this page.`,
      trained: training(about),
      trainedOn:
        TRAINED_ON[about.dataset] ||
        (about.dataset ? `a text called ${about.dataset}` : "a text that its owner chose"),
      parameters: count(sum("")),
      vocabulary: count(config.vocab_size),
      width: count(config.d_model),
      hidden: count(config.d_ff),
      context: things(config.max_seq_len, "token"),
      layers: config.num_layers === 1 ? "1 block" : `${config.num_layers} blocks`,
      heads: config.num_heads === 1 ? `only one, of width ${count(model.headDim)}: it is` : `${count(config.num_heads)} in every layer, each of width ${count(model.headDim)}; together they are`,
      ofItsOwn: config.kv_heads === config.num_heads ? "queries, keys and values of its own" : "queries of its own",
      grouped:
        config.kv_heads === config.num_heads
          ? ""
          : `Keys and values have only ${config.kv_heads === 1 ? "one head, which all query heads use" : `${config.kv_heads} heads, each used by several query heads`}: this saves memory.`,
      shared:
        config.kv_heads === config.num_heads
          ? ": in this model each has its own, and nothing changes"
          : ` and, in attention_scores, the keys`,
      repeats:
        about.dataset === "refrains"
          ? "An earlier model, trained on the plays alone, did not learn this. So the training text of this one also has words and passages of the plays several times."
          : "",
      activation: ACTIVATIONS[config.activation],
      feedforwardShare: percent(sum(".feedforward.") / sum("")),
      norm:
        config.norm === "rmsnorm"
          ? "RMSNorm, which this model uses, divides by the root of the mean of the squares, and multiplies each number by a learned weight. It works like layer norm, but does not subtract the mean and has no bias."
          : `Layer norm subtracts the mean of the vector's numbers and divides by their standard deviation. Then it multiplies each number by a learned weight${config.bias ? " and adds a learned bias" : ""}.`,
      encoding:
        exported.tokenizer.kind === "byte"
          ? "This model does not use it: it reads single bytes, and its vocabulary is the 256 bytes and one entry for the end of a text."
          : "",
      tied: weights["head.weight"]
        ? "In this model those rows are a table of their own."
        : "In this model those rows, E, are the table of embeddings once more: a vector that points in the direction of a token's row makes that token likely.",
    };
  };
})();
