// The operations of a small GPT, each with its derivative beside it.
//
// Every operation is a pair of functions. The first computes y from x. The second goes the other way: it is given the
// gradient of the loss with respect to y, and adds to the gradient with respect to x and to the weights. This is the chain
// rule: dloss/dx = dloss/dy * dy/dx, summed over all numbers of y that x has an effect on. A name that begins with d is
// a gradient: dx has the shape of x, and dx[i] is the slope of the loss with respect to x[i].
//
// Backward functions add (+=) and never overwrite: a number that is used twice has two effects, and they add up.
//
// A matrix (N, C) is a flat array, row by row: entry (n, c) is number n * C + c. N counts the positions of all rows of the
// batch. The innermost loop always runs along a row, because neighbouring numbers in memory are the fastest to reach.

var GPT = GPT || {};
GPT.engine("operations", (GPT) => {
  "use strict";

  // -- Linear: y = x W^T + b. x (N, I), W (O, I), b (O) -> y (N, O)

  function linear(y, x, W, b, N, I, O) {
    const whole = N - (N % 4);
    for (let n = 0; n < whole; n += 4) { // four positions at a time: each weight is fetched once for all of them
      const [x0, x1, x2, x3] = [n * I, (n + 1) * I, (n + 2) * I, (n + 3) * I];
      for (let o = 0; o < O; o += 1) {
        const weights = o * I;
        let [y0, y1, y2, y3] = [0, 0, 0, 0];
        for (let i = 0; i < I; i += 1) {
          const w = W[weights + i];
          y0 += w * x[x0 + i];
          y1 += w * x[x1 + i];
          y2 += w * x[x2 + i];
          y3 += w * x[x3 + i];
        }
        const constant = b ? b[o] : 0;
        y[n * O + o] = y0 + constant;
        y[(n + 1) * O + o] = y1 + constant;
        y[(n + 2) * O + o] = y2 + constant;
        y[(n + 3) * O + o] = y3 + constant;
      }
    }
    for (let n = whole; n < N; n += 1) {
      for (let o = 0; o < O; o += 1) {
        let dot = b ? b[o] : 0;
        for (let i = 0; i < I; i += 1) dot += W[o * I + i] * x[n * I + i];
        y[n * O + o] = dot;
      }
    }
  }

  /** dx += dy W        dW += dy^T x        db += the sum of dy over all positions */
  function linearBackward(dy, x, W, dx, dW, db, N, I, O) {
    addProduct(dx, dy, W, N, O, I, O, 1);
    addProduct(dW, dy, x, O, N, I, 1, O);
    if (db) for (let n = 0; n < N; n += 1) for (let o = 0; o < O; o += 1) db[o] += dy[n * O + o];
  }

  /** C (M, L) += A B, with B (K, L) and entry (m, k) of A at A[m * down + k * right], so that A may be a transpose. */
  function addProduct(C, A, B, M, K, L, down, right) {
    const whole = K - (K % 4);
    for (let m = 0; m < M; m += 1) {
      const row = m * L;
      for (let k = 0; k < whole; k += 4) { // four rows of B at a time: C is read and written a quarter as often
        const at = m * down + k * right;
        const [a0, a1, a2, a3] = [A[at], A[at + right], A[at + 2 * right], A[at + 3 * right]];
        const [b0, b1, b2, b3] = [k * L, (k + 1) * L, (k + 2) * L, (k + 3) * L];
        if (a0 === 0 && a1 === 0 && a2 === 0 && a3 === 0) continue; // common after ReLU
        for (let l = 0; l < L; l += 1) C[row + l] += a0 * B[b0 + l] + a1 * B[b1 + l] + a2 * B[b2 + l] + a3 * B[b3 + l];
      }
      for (let k = whole; k < K; k += 1) {
        const a = A[m * down + k * right];
        for (let l = 0; l < L; l += 1) C[row + l] += a * B[k * L + l];
      }
    }
  }

  // -- ReLU: y = max(0, x). Its slope is 1 above 0, and 0 below.

  function relu(y, x) {
    for (let i = 0; i < x.length; i += 1) y[i] = x[i] > 0 ? x[i] : 0;
  }

  function reluBackward(dy, y, dx) {
    for (let i = 0; i < y.length; i += 1) if (y[i] > 0) dx[i] += dy[i];
  }

  // -- Layer norm: n = (x - mean) / deviation, y = n * weight + bias, row by row. x, y (N, C); scale (N) keeps 1 / deviation.

  function layerNorm(y, normed, scale, x, weight, bias, N, C, eps) {
    for (let n = 0; n < N; n += 1) {
      const row = n * C;
      let [mean, variance] = [0, 0];
      for (let c = 0; c < C; c += 1) mean += x[row + c] / C;
      for (let c = 0; c < C; c += 1) variance += (x[row + c] - mean) ** 2 / C;
      scale[n] = 1 / Math.sqrt(variance + eps);
      for (let c = 0; c < C; c += 1) {
        normed[row + c] = (x[row + c] - mean) * scale[n];
        y[row + c] = normed[row + c] * weight[c] + bias[c];
      }
    }
  }

  /** With g = dy * weight: dx += scale * (g - mean(g) - n * mean(g * n)). The two means are there because every x has an
   *  effect on the mean and the deviation of its row, and through them on every y of the row. */
  function layerNormBackward(dy, normed, scale, weight, dx, dWeight, dBias, N, C) {
    for (let n = 0; n < N; n += 1) {
      const row = n * C;
      let [meanG, meanGN] = [0, 0];
      for (let c = 0; c < C; c += 1) {
        const g = dy[row + c] * weight[c];
        meanG += g / C;
        meanGN += (g * normed[row + c]) / C;
        dWeight[c] += dy[row + c] * normed[row + c];
        dBias[c] += dy[row + c];
      }
      for (let c = 0; c < C; c += 1) {
        dx[row + c] += scale[n] * (dy[row + c] * weight[c] - meanG - normed[row + c] * meanGN);
      }
    }
  }

  // -- Attention, causal. qkv (B * T, 3C): each row has a query, a key and a value for each of H heads of width D = C / H.
  //    score(t, s) = q_t . k_s / sqrt(D) for s <= t;   w(t, .) = softmax of score(t, .);   y_t = sum over s of w(t, s) v_s.
  //    y (B * T, C); weights (B, H, T, T).

  function attention(y, weights, qkv, B, T, C, H) {
    const D = C / H;
    y.fill(0);
    for (let b = 0; b < B; b += 1) for (let h = 0; h < H; h += 1) for (let t = 0; t < T; t += 1) {
      const [q, out, w] = [(b * T + t) * 3 * C + h * D, (b * T + t) * C + h * D, ((b * H + h) * T + t) * T];
      let [largest, sum] = [-Infinity, 0];
      for (let s = 0; s <= t; s += 1) {
        const k = (b * T + s) * 3 * C + C + h * D;
        let score = 0;
        for (let d = 0; d < D; d += 1) score += qkv[q + d] * qkv[k + d];
        weights[w + s] = score / Math.sqrt(D);
        if (weights[w + s] > largest) largest = weights[w + s];
      }
      for (let s = 0; s <= t; s += 1) sum += weights[w + s] = Math.exp(weights[w + s] - largest);
      for (let s = 0; s <= t; s += 1) {
        const v = (b * T + s) * 3 * C + 2 * C + h * D;
        weights[w + s] /= sum;
        for (let d = 0; d < D; d += 1) y[out + d] += weights[w + s] * qkv[v + d];
      }
    }
  }

  /** dv_s += w(t, s) dy_t and dw(t, s) = dy_t . v_s; through the softmax, dscore(t, s) = w(t, s) (dw(t, s) - the mean of
   *  dw(t, .), weighted by w(t, .)); then dq_t += dscore k_s / sqrt(D) and dk_s += dscore q_t / sqrt(D). */
  function attentionBackward(dy, weights, qkv, dqkv, B, T, C, H) {
    const D = C / H;
    const dw = new Float64Array(T);
    for (let b = 0; b < B; b += 1) for (let h = 0; h < H; h += 1) for (let t = 0; t < T; t += 1) {
      const [q, out, w] = [(b * T + t) * 3 * C + h * D, (b * T + t) * C + h * D, ((b * H + h) * T + t) * T];
      let mean = 0;
      for (let s = 0; s <= t; s += 1) {
        const v = (b * T + s) * 3 * C + 2 * C + h * D;
        dw[s] = 0;
        for (let d = 0; d < D; d += 1) {
          dw[s] += dy[out + d] * qkv[v + d];
          dqkv[v + d] += weights[w + s] * dy[out + d];
        }
        mean += weights[w + s] * dw[s];
      }
      for (let s = 0; s <= t; s += 1) {
        const k = (b * T + s) * 3 * C + C + h * D;
        const dscore = (weights[w + s] * (dw[s] - mean)) / Math.sqrt(D);
        for (let d = 0; d < D; d += 1) {
          dqkv[q + d] += dscore * qkv[k + d];
          dqkv[k + d] += dscore * qkv[q + d];
        }
      }
    }
  }

  // -- Embedding: y_n = the row of the token's table plus the row of its position. tokens (B * T) -> y (B * T, C)

  function embed(y, tokens, tokenTable, positionTable, N, T, C) {
    for (let n = 0; n < N; n += 1) {
      const [token, position] = [tokens[n] * C, (n % T) * C];
      for (let c = 0; c < C; c += 1) y[n * C + c] = tokenTable[token + c] + positionTable[position + c];
    }
  }

  /** A sum passes its gradient on to both of its parts. */
  function embedBackward(dy, tokens, dTokenTable, dPositionTable, N, T, C) {
    for (let n = 0; n < N; n += 1) {
      const [token, position] = [tokens[n] * C, (n % T) * C];
      for (let c = 0; c < C; c += 1) {
        dTokenTable[token + c] += dy[n * C + c];
        dPositionTable[position + c] += dy[n * C + c];
      }
    }
  }

  // -- Softmax and loss: p = softmax(logits), loss = the mean of -ln p(the byte that really came). logits (N, V).

  /** Replaces the logits by their probabilities, and returns the mean loss in nats. */
  function crossEntropy(logits, targets, N, V) {
    let loss = 0;
    for (let n = 0; n < N; n += 1) {
      const row = n * V;
      let [largest, sum] = [-Infinity, 0];
      for (let v = 0; v < V; v += 1) if (logits[row + v] > largest) largest = logits[row + v];
      loss += largest - logits[row + targets[n]];
      for (let v = 0; v < V; v += 1) sum += logits[row + v] = Math.exp(logits[row + v] - largest);
      loss += Math.log(sum); // -ln p = ln(the sum of e^logit) - the target's logit
      for (let v = 0; v < V; v += 1) logits[row + v] /= sum;
    }
    return loss / N;
  }

  /** dlogits = (p - 1 for the byte that came, p - 0 for the others) / N: the predicted probability minus the right answer. */
  function crossEntropyBackward(dlogits, probs, targets, N, V) {
    for (let i = 0; i < N * V; i += 1) dlogits[i] = probs[i] / N;
    for (let n = 0; n < N; n += 1) dlogits[n * V + targets[n]] -= 1 / N;
  }

  GPT.operations = { linear, linearBackward, relu, reluBackward, layerNorm, layerNormBackward, attention,
    attentionBackward, embed, embedBackward, crossEntropy, crossEntropyBackward };
});
