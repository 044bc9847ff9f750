// The model: from token ids to a logit for every possible next token. The same computation as src/transformer/model.py,
// without PyTorch. It keeps all intermediate results, so that the page can show them.
//
//   T tokens so far, C = d_model, H heads of width D = C / H, K key and value heads, V entries of the vocabulary
//
//   tokens (T)
//     |   token vectors, and positions                                  (T, C)   embed
//     |   block by block, a correction to every token's vector:
//     |       x = x + attention(norm(x))            read other tokens    (T, C)   attend
//     |       x = x + feedForward(norm(x))          process the result   (T, C)   feedForward
//     |   a last norm                                                    (T, C)
//     v   compare with every token's row                                 (T, V)   logits
//
//   const model = GPT.load(GPT.exported);
//   const trace = model.run(model.tokenizer.encode("ROMEO:"));      trace.logits(trace.T - 1): logits of the next token
//   const cache = model.start();                                     model.step(cache, token): the same, token by token
//   model.run(tokens, (name, values) => name === "blocks.0.feedforward.output" && values.map(() => 0))       see advance

var GPT = GPT || {};
GPT.engine("forward", (GPT) => {
  "use strict";
  const { tensor, withShape, dot, linear, add, layerNorm, rmsNorm, activations, bytesOf } = GPT.maths;

  const FORMAT = 1;
  const unchanged = (name, values) => values;

  class Model {
    constructor(exported) {
      if (exported.format !== FORMAT) throw new RangeError(`model of format ${exported.format}, not ${FORMAT}`);
      this.config = exported.config;
      this.about = exported.about;
      this.tokenizer = GPT.tokenizer(exported.tokenizer);
      this.headDim = this.config.d_model / this.config.num_heads;
      this.slopes = this.config.position === "alibi" ? alibiSlopes(this.config.num_heads) : null;
      this.take(Object.fromEntries(Object.entries(exported.weights).map(([name, stored]) => [name, unpack(stored)])));
    }

    /** Takes weights, by their names in Python. */
    take(weights) {
      this.weights = weights;
      this.layers = Array.from({ length: this.config.num_layers }, (_, layer) => this.part(`blocks.${layer}.`));
      this.tokenTable = this.weights["embeddings.token.weight"]; // (V, C)
      this.head = this.weights["head.weight"] || this.tokenTable; // (V, C); tied: the token table
      this.positionTable = positionTable(this); // (longest context, C), or null
    }

    /** The weights whose names begin with `prefix`, by the rest of their names. */
    part(prefix) {
      const names = Object.keys(this.weights).filter((name) => name.startsWith(prefix));
      return Object.fromEntries(names.map((name) => [name.slice(prefix.length), this.weights[name]]));
    }

    /** Reads all tokens at once. Returns the trace of all intermediate results: see advance. */
    run(tokens, edit) {
      return this.advance(tokens, this.start(Math.max(1, tokens.length)), edit);
    }

    /** An empty cache for the keys and values of maxLen tokens. */
    start(maxLen = this.config.max_seq_len) {
      const heads = () => this.layers.map(() => tensor(this.config.kv_heads, maxLen, this.headDim));
      const perToken = this.config.num_layers * 2 * this.config.kv_heads * this.headDim * 4; // bytes
      return { keys: heads(), values: heads(), length: 0, maxLen, get bytes() { return perToken * this.length; } };
    }

    /** Reads one token and appends it to the cache. Returns the logits of the next one, (V). */
    step(cache, token) {
      return this.advance([token], cache).logits(0);
    }

    /** Reads T tokens after the `past` ones in the cache, S = past + T in all. Returns the trace:
     *  tokens, T, past; tokenVectors, positionVectors (or null) and embedded (T, C); layers, one object per block, with
     *  the results of attend and feedForward and the stream between them; final (T, C), after the last norm; logits(t), (V).
     *
     *  edit(name, values, trace) may return other values of the same shape, which take their place; anything false keeps
     *  them. Names as in src/transformer/activations.py: embeddings; in block N, blocks.N.residual_before, attention_norm,
     *  attention.queries, .keys, .values, .heads (T, C: the heads side by side), .output, residual_mid, feedforward_norm,
     *  feedforward.hidden, .output, residual_after; final_norm. The trace holds what has been computed so far. */
    advance(tokens, cache, edit = null) {
      this.check(tokens, cache);
      const trace = { tokens: Array.from(tokens), T: tokens.length, past: cache.length, layers: [] };
      const edited = (name, values) => withShape((edit && edit(name, values, trace)) || values, values.shape);
      Object.assign(trace, this.embed(trace.tokens, cache.length));
      trace.embedded = edited("embeddings", trace.embedded); // (T, C): the residual stream
      let x = trace.embedded;
      this.layers.forEach((layer, index) => {
        const inside = (trace.layers[index] = {});
        const here = (name, values) => edited(`blocks.${index}.${name}`, values);
        inside.input = here("residual_before", x);
        const normed1 = this.norm(inside.input, layer["attention_norm.weight"], layer["attention_norm.bias"]);
        inside.normed1 = here("attention_norm", normed1); // (T, C)
        Object.assign(inside, this.attend(inside.normed1, layer, cache, index, here));
        inside.afterAttention = here("residual_mid", add(inside.input, inside.attentionOut)); // (T, C)
        const normed2 = this.norm(
          inside.afterAttention, layer["feedforward_norm.weight"], layer["feedforward_norm.bias"]);
        inside.normed2 = here("feedforward_norm", normed2); // (T, C)
        Object.assign(inside, this.feedForward(inside.normed2, layer, here));
        inside.output = here("residual_after", add(inside.afterAttention, inside.feedForwardOut)); // (T, C)
        x = inside.output;
      });
      cache.length += trace.T;
      trace.final = edited("final_norm", this.finalNorm(x)); // (T, C)
      const known = [];
      trace.logits = (t) => (known[t] ??= this.toLogits(row(trace.final, t))); // (V)
      return trace;
    }

    /** Throws RangeError for an invalid token, or for more tokens than the context or the cache can hold. */
    check(tokens, cache) {
      const { vocab_size: V, max_seq_len: longest } = this.config;
      const wrong = tokens.find((token) => !(Number.isInteger(token) && token >= 0 && token < V));
      if (wrong !== undefined) throw new RangeError(`token ${wrong} is outside this model's 0 to ${V - 1}`);
      const length = cache.length + tokens.length;
      if (length > longest) throw new RangeError(`${length} tokens do not fit the context of max_seq_len=${longest}`);
      if (length > cache.maxLen) throw new RangeError(`${length} tokens do not fit the cache of ${cache.maxLen}`);
    }

    /** The row of the token table for each token, plus the row for its position if the model adds one. */
    embed(tokens, past) {
      const C = this.config.d_model;
      const tokenVectors = tensor(tokens.length, C);
      tokens.forEach((token, t) => tokenVectors.set(row(this.tokenTable, token), t * C));
      if (!this.positionTable) return { tokenVectors, positionVectors: null, embedded: tokenVectors };
      const rows = this.positionTable.slice(past * C, (past + tokens.length) * C);
      const positionVectors = withShape(rows, [tokens.length, C]);
      return { tokenVectors, positionVectors, embedded: add(tokenVectors, positionVectors) };
    }

    norm(x, weight, bias) {
      const eps = this.config.norm_eps;
      return this.config.norm === "rmsnorm" ? rmsNorm(x, weight, eps) : layerNorm(x, weight, bias, eps);
    }

    finalNorm(x) {
      return this.norm(x, this.weights["final_norm.weight"], this.weights["final_norm.bias"]);
    }

    /** Attention: x (T, C), normed, -> attentionOut (T, C), and the intermediate results
     *  q (H, T, D), k and v (K, T, D), with q and k rotated if positions are rotary (unrotated: before the rotation);
     *  scores (H, T, S), before the mask; weights (H, T, S), whose rows sum to 1; gathered (T, C), the weighted sums of
     *  all heads, concatenated. `here` passes them to advance's edit. */
    attend(x, layer, cache, index, here = unchanged) {
      const { num_heads: H, kv_heads: K } = this.config;
      const projected = linear(x, layer["attention.qkv.weight"], layer["attention.qkv.bias"]); // (T, (H + 2K) * D)
      let q = cutHeads(projected, 0, H, this.headDim); // (H, T, D)
      let k = cutHeads(projected, H, K, this.headDim); // (K, T, D)
      let v = cutHeads(projected, H + K, K, this.headDim); // (K, T, D)
      let unrotated = null;
      if (this.config.position === "rotary") {
        unrotated = { q, k };
        [q, k] = [q, k].map((heads) => rotate(heads, cache.length, this.config.rope_theta));
      }
      [q, k, v] = [here("attention.queries", q), here("attention.keys", k), here("attention.values", v)];
      store(cache.keys[index], k, cache.length);
      store(cache.values[index], v, cache.length);
      const { scores, weights } = this.compare(q, cache.keys[index], cache.length); // (H, T, S) each
      const gathered = here("attention.heads", weightedSum(weights, cache.values[index])); // (T, C)
      const added = linear(gathered, layer["attention.out.weight"], layer["attention.out.bias"]); // (T, C)
      return { q, k, v, unrotated, scores, weights, gathered, attentionOut: here("attention.output", added) };
    }

    /** Every query with every key, q (H, T, D), keys (K, maxLen, D) -> scores and weights (H, T, S). */
    compare(q, keys, past) {
      const [H, T, D] = q.shape;
      const [K, maxLen] = keys.shape;
      const S = past + T;
      const [scores, weights] = [tensor(H, T, S), tensor(H, T, S)];
      for (let h = 0; h < H; h += 1) {
        const kv = Math.floor((h * K) / H); // the key head of query head h: if K < H, neighbours use the same one
        for (let t = 0; t < T; t += 1) {
          const at = (h * T + t) * S;
          for (let s = 0; s < S; s += 1) {
            scores[at + s] = dot(q, (h * T + t) * D, keys, (kv * maxLen + s) * D, D) / Math.sqrt(D);
          }
          const seen = scores.slice(at, at + past + t + 1); // the mask: no key after the query's own position
          if (this.slopes) seen.forEach((_, s) => { seen[s] -= this.slopes[h] * (past + t - s); });
          weights.set(GPT.maths.softmax(seen), at);
        }
      }
      return { scores, weights };
    }

    /** The feed-forward network, token by token: x (T, C), normed, -> feedForwardOut (T, C), and the intermediate results
     *  preActivation and hidden (T, d_ff), before and after the activation function; with swiglu, gated (T, d_ff) is the
     *  projection that the gate multiplies. */
    feedForward(x, layer, here = unchanged) {
      const activation = activations[this.config.activation];
      const up = linear(x, layer["feedforward.up.weight"], layer["feedforward.up.bias"]); // (T, d_ff)
      const isGated = this.config.activation === "swiglu";
      const preActivation = isGated
        ? linear(x, layer["feedforward.gate.weight"], layer["feedforward.gate.bias"]) // (T, d_ff)
        : up;
      const units = tensor(...up.shape);
      for (let i = 0; i < units.length; i += 1) units[i] = activation(preActivation[i]) * (isGated ? up[i] : 1);
      const hidden = here("feedforward.hidden", units);
      const added = linear(hidden, layer["feedforward.down.weight"], layer["feedforward.down.bias"]); // (T, C)
      const feedForwardOut = here("feedforward.output", added);
      return { preActivation, gated: isGated ? up : null, hidden, feedForwardOut };
    }

    /** The dot products of a vector (C), after the last norm, with every token's row -> (V). */
    toLogits(vector) {
      return withShape(linear(vector, this.head, null), [this.config.vocab_size]);
    }

    /** The logits if the residual stream ended at this vector (C) -> (V): the "logit lens". */
    logitsFrom(vector) {
      return this.toLogits(this.finalNorm(vector));
    }
  }

  /** Row i of a matrix, as a view of it. */
  function row(matrix, i) {
    const columns = matrix.shape[1];
    return withShape(matrix.subarray(i * columns, (i + 1) * columns), [columns]);
  }

  /** `count` heads, starting at `first`, from rows with D numbers per head: (T, heads * D) -> (count, T, D). */
  function cutHeads(projected, first, count, D) {
    const [T, width] = projected.shape;
    const heads = tensor(count, T, D);
    for (let h = 0; h < count; h += 1) {
      for (let t = 0; t < T; t += 1) {
        const from = t * width + (first + h) * D;
        heads.set(projected.subarray(from, from + D), (h * T + t) * D);
      }
    }
    return heads;
  }

  /** Writes the heads of new tokens (K, T, D) into the cache's (K, maxLen, D), starting at position `past`. */
  function store(cached, heads, past) {
    const [K, T, D] = heads.shape;
    const maxLen = cached.shape[1];
    for (let h = 0; h < K; h += 1) cached.set(heads.subarray(h * T * D, (h + 1) * T * D), (h * maxLen + past) * D);
  }

  /** Each head's values, weighted and summed: weights (H, T, S), values (K, maxLen, D) -> (T, H * D). */
  function weightedSum(weights, values) {
    const [H, T, S] = weights.shape;
    const [K, maxLen, D] = values.shape;
    const sums = tensor(T, H * D);
    const sum = new Float64Array(D);
    for (let h = 0; h < H; h += 1) {
      const kv = Math.floor((h * K) / H);
      for (let t = 0; t < T; t += 1) {
        sum.fill(0);
        for (let s = 0; s < S; s += 1) {
          const weight = weights[(h * T + t) * S + s];
          if (weight === 0) continue; // a later token, or a weight that is 0
          const from = (kv * maxLen + s) * D;
          for (let d = 0; d < D; d += 1) sum[d] += weight * values[from + d];
        }
        sums.set(sum, (t * H + h) * D);
      }
    }
    return sums;
  }

  /** The vectors that are added for positions 0, 1, 2, ...: learned, sinusoidal, or null if positions act in attention. */
  function positionTable(model) {
    const { position, max_seq_len: longest, d_model: C } = model.config;
    if (position === "learned") return model.weights["embeddings.position.weight"]; // (longest, C)
    if (position !== "sinusoidal") return null;
    return sinusoidal(longest, C).map((number) => 0.02 * Math.SQRT2 * number); // as large as fresh token rows
  }

  /** The fixed table of sinusoidal positions: (positions, C), sines in even columns, cosines in odd ones. */
  function sinusoidal(positions, C) {
    const table = tensor(positions, C);
    for (let p = 0; p < positions; p += 1) {
      for (let c = 0; c < C; c += 2) {
        const angle = p * 10_000 ** (-c / C);
        table[p * C + c] = Math.sin(angle);
        if (c + 1 < C) table[p * C + c + 1] = Math.cos(angle);
      }
    }
    return table;
  }

  /** Rotary positions: rotates the pair (d, d + D/2) of the token at position p by the angle p / theta^(2d/D). */
  function rotate(heads, past, theta) {
    const [count, T, D] = heads.shape;
    const rotated = tensor(count, T, D);
    for (let d = 0; d < D / 2; d += 1) {
      const frequency = theta ** ((-2 * d) / D);
      for (let t = 0; t < T; t += 1) {
        const [cos, sin] = [Math.cos((past + t) * frequency), Math.sin((past + t) * frequency)];
        for (let h = 0; h < count; h += 1) {
          const [i, j] = [(h * T + t) * D + d, (h * T + t) * D + d + D / 2];
          rotated[i] = heads[i] * cos - heads[j] * sin;
          rotated[j] = heads[j] * cos + heads[i] * sin;
        }
      }
    }
    return rotated;
  }

  /** ALiBi: how much each head subtracts from a score per token of distance. See embeddings.py for the two series. */
  function alibiSlopes(H) {
    const power = 2 ** Math.floor(Math.log2(H));
    const slopes = Array.from({ length: power }, (_, i) => 2 ** ((-8 * (i + 1)) / power));
    const between = Array.from({ length: power }, (_, i) => 2 ** ((-4 * (2 * i + 1)) / power));
    return [...slopes, ...between.slice(0, H - power)];
  }

  /** Stored numbers as 32-bit ones. int8: whole numbers from -127 to 127, and a scale for each row to multiply with. */
  function unpack(stored) {
    const bytes = bytesOf(stored.data);
    if (stored.type === "float32") return withShape(new Float32Array(bytes.buffer), stored.shape);
    const [rows, columns] = stored.shape;
    const whole = new Int8Array(bytes.buffer);
    const scales = new Float32Array(bytesOf(stored.scales).buffer); // (rows)
    const matrix = tensor(rows, columns);
    for (let r = 0; r < rows; r += 1) {
      for (let i = r * columns; i < (r + 1) * columns; i += 1) matrix[i] = whole[i] * scales[r];
    }
    return matrix;
  }

  GPT.positions = { sinusoidal, slopes: alibiSlopes };

  /** The model that main.py export-page wrote: config, tokenizer and weights. */
  GPT.load = (exported) => new Model(exported);
});
