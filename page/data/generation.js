// Made by scripts/page_data.py.

var GPT = GPT || {};
GPT.data = GPT.data || {};
GPT.data.generation = null;
