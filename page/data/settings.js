// Made by scripts/page_data.py.

var GPT = GPT || {};
GPT.data = GPT.data || {};
GPT.data.settings = {
  "optimizer": {"optimizer": "adamw", "learning_rate": 0.0006, "muon_learning_rate": 0.02, "schedule": "cosine", "decay_fraction": 0.2, "min_lr_ratio": 0.1, "warmup_fraction": 0.02, "weight_decay": 0.1, "beta1": 0.9, "beta2": 0.95, "grad_clip": 1.0},
  "sampling": {"greedy": {"repetitionPenalty": 1.0, "temperature": 0}, "precise": {"repetitionPenalty": 1.0, "temperature": 0.5, "topK": 20, "topP": 0.8, "minP": 0.0}, "balanced": {"repetitionPenalty": 1.0, "temperature": 0.8, "topK": 50, "topP": 0.9, "minP": 0.0}, "creative": {"repetitionPenalty": 1.0, "temperature": 1.0, "topP": 0.95, "minP": 0.0}, "very-creative": {"repetitionPenalty": 1.0, "temperature": 1.2, "topP": 0.98, "minP": 0.0}},
};
