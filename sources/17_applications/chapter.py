# %% [markdown]
# # 17 · Applications — programs around a light model, each beside the plainest way to do without
#
# **You will be able to**
#
# - build a search by meaning, keep its index in one bit a number, and tell what that loses;
# - take answers out of a text, and let a program say "I do not know";
# - write a chat whose history fits its window, and that reads nothing twice;
# - judge summaries and recommendations beside the plainest baseline there is;
# - join two kinds of input early or late, and say what that costs and when it pays.
#
# **You need:** chapters 02, 04 and 13. **Time:** 60 minutes of reading, 26 for the parts marked ★ (the fast path). The whole notebook runs in about a minute.
#
# Below each **Predict**, write your guess into the next cell, in place of the dots.

# %%
import copy
import os
import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

# %%
import lightcourse
from lightcourse import data, encoding, generation, metrics, models, plots, quantization
from lightcourse.applications import (
    answers,
    fusion,
    recommendation,
    replies,
    search,
    sentiment,
    summaries,
)
from lightcourse.guessing import compare

# %% [markdown]
# Some things run beside each other below, so each gets one thread:

# %%
lightcourse.setup(threads=1)


def each(function, rows):
    """Call a function for each row, two at a time: one on each core."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(function, rows))


# %% [markdown]
# A model alone is of no use to anybody. What people use is a program around it, and most of the program is no model. So each section below asks three questions: what would do the job *without* a large model? How much better is the model? And what is left of that once the model is light?
#
# ## ★ 1 · A search by meaning
#
# A search by words finds "births" where somebody asks for births. It does not find "typhoon" for "Which disasters threaten people?" A **vector search** compares meanings: MiniLM makes one vector of each passage beforehand, and one of each question; the largest cosine wins. That costs bytes (the model, and a vector for each passage) and time (the model reads each question). Both can be compressed.
#
# The passages are the World Factbook's of 30 countries. The text seldom names its country, so country and section are put before it.

# %%
tokenizer = models.load_minilm_tokenizer()
encoder = search.small_encoder()  # MiniLM in 8 bits, jitted (chapter 14)
country = data.load_country_names()
here = {(country[r["country"]], r["text"]) for r in data.load_factbook()["test"]}
rows = [r for r in search.factbook_passages() if (r["country"], r["text"]) in here]
read = [row["read"] for row in rows]
halves = each(lambda half: search.unit_vectors(half, encoder, tokenizer), (read[::2], read[1::2]))
vectors = torch.empty(len(read), 384)
vectors[::2], vectors[1::2] = halves
words = search.Bm25(read)
print(f"{len(rows)} passages, each a vector of {vectors.shape[1]} numbers; one of them:")
print(read[900][:90])

# %% [markdown]
# To measure a search, one needs questions whose right passage is known. Nobody has labelled any for the Factbook, so **these were made**, and what we find is true of them only:
#
# - *written*: 48 questions that a person wrote about ten countries, in other words than the passage's. The countries were drawn by lot before any result was seen.
# - *by rule*: 235 questions, the same 14 topics for each country.
# - *own words*: for the same 235 passages, their country and their four longest words. So searches somebody who remembers the text.

# %%
place = {row["text"]: number for number, row in enumerate(rows)}
asked = {kind: data.load_factbook_questions(kind) for kind in ("written", "by rule")}
right_ones = [place[question["passage"]] for question in asked["by rule"]]
asked["own words"] = []
for i in right_ones:
    longest = sorted(set(rows[i]["text"].split()), key=lambda word: (-len(word), word))[:4]
    query = " ".join([rows[i]["country"], *longest])
    asked["own words"].append({"question": query, "passage": rows[i]["text"]})
texts = {kind: [q["question"] for q in said] for kind, said in asked.items()}
right = {k: np.eye(len(rows))[[place[q["passage"]] for q in said]] for k, said in asked.items()}
points = {kind: search.unit_vectors(said, encoder, tokenizer) for kind, said in texts.items()}
texts["written"][:3]

# %% [markdown]
# **Recall at k** is the share of questions whose right passage is among the first k (there is one right passage here). The **mean reciprocal rank**, MRR, is the mean of 1 / its place: 1 for the first place, 0.5 for the second. Where scores are equal, the wrong passage counts first: a search that cannot tell must not profit from the order in which passages lie.
#
# The baseline is **BM25** (Robertson & Zaragoza 2009). It counts the words that both have, rare ones with more weight, and needs no model at all.
#
# **Predict:** for what share of the questions *in other words* has BM25 the right passage among its first five?

# %% atol=0.05
guess = ...  # a share, 0 to 1
found = {}
for kind in asked:
    scores = {"BM25": words(texts[kind]), "vectors": (points[kind] @ vectors.T).numpy()}
    scores["both"] = search.fuse(*scores.values())
    for name, given in scores.items():
        found[kind, name] = metrics.recall_at(given, right[kind], 5).mean()
        mrr = metrics.reciprocal_ranks(given, right[kind]).mean()
        print(f"{kind:10} {name:8} recall at 5 {found[kind, name]:.2f}   MRR {mrr:.2f}")
compare(guess, f"{found['written', 'BM25']:.2f}")

# %% [markdown]
# FINDINGS1
#
# **Reciprocal rank fusion** (*both*) adds 1 / (60 + place) over the two lists.

# %% [markdown]
# ### The index in fewer bits
#
# An index is a linear layer without a bias: its rows are the passages, its outputs are their scores. So chapter 04 applies: 8 bits with a scale for each row, 4 bits with a scale for each 32 columns. And **one bit**: only the sign of each number stays, 48 bytes a passage in place of 1,536. Signs are compared by counting how many agree. Then the best hundred get a second look, in which the question keeps its floats.
#
# **Predict:** which share of its MRR does the search keep with one bit?

# %% atol=0.05
guess = ...  # a share of the MRR with floats, 0 to 1
signs, kept = search.SignIndex(vectors), {}
for bits in (None, 8, 4):
    index = search.vector_index(vectors, bits)
    kept[f"{bits or 32} bits"] = metrics.size_in_bytes(index), index(points["by rule"]).numpy()
kept["1 bit"] = signs.nbytes, signs(points["by rule"])
kept["1 bit, second look"] = signs.nbytes, signs.reranked(points["by rule"])
mrr = {b: metrics.reciprocal_ranks(s, right["by rule"]) for b, (_, s) in kept.items()}
for bits, (size, _) in kept.items():
    gap = mrr[bits] - mrr["32 bits"]
    print(f"{size:9,} bytes  MRR {gap.mean():+.2f} ± {2 * gap.std() / len(gap) ** 0.5:.2f}  {bits}")
compare(guess, f"{mrr['1 bit'].mean() / mrr['32 bits'].mean():.2f}")

# %% [markdown]
# FINDINGS2

# %% [markdown]
# ## 2 · An answer, or none
#
# A search gives passages. People want an answer. **Extractive** question answering takes it out of a text: nothing is invented, and everybody can look it up. Ours needs no further model. Of the best three passages, the clause whose vector is nearest to the question's wins; and if the question asks for a number, a date or a person, the answer is the first one in that clause. The baseline answers with the first clause of the best passage.
#
# Two measures (Rajpurkar et al. 2016, arXiv 1606.05250): does the answer **hold** the wanted words? And **token F1**, which also punishes who says too much.


# %%
def answered(kind):
    """Return for each question the answer, the baseline's, and the best passage's cosine."""
    given = []
    for question, scores in zip(texts[kind], points[kind] @ vectors.T, strict=True):
        best = [rows[i] for i in scores.argsort(descending=True)[:3]]
        said = answers.best_answer(question, best, encoder, tokenizer)
        given.append((said.text, answers.clauses(best[0]["text"])[0], scores.max().item()))
    return given


# %% atol=0.05
told = dict(zip(("written", "by rule"), each(answered, ("written", "by rule")), strict=True))
for kind, given in told.items():
    wanted = [question["answer"] for question in asked[kind]]
    for number, way in enumerate(("answer", "first clause")):
        pairs = [(row[number], want) for row, want in zip(given, wanted, strict=True)]
        holds = np.mean([answers.contains(*pair) for pair in pairs])
        f1 = np.mean([answers.token_f1(*pair) for pair in pairs])
        print(f"{kind:8} {way:12} holds it {holds:.2f}   F1 {f1:.2f}")

# %% [markdown]
# FINDINGS3
#
# ### "I do not know"
#
# The Factbook does not know what a cup of coffee costs in Jordan. 20 more questions have no answer in it, and there the program should be silent. Its confidence is the cosine of the best passage; a threshold decides.

# %% atol=0.05
texts["no answer"] = [q["question"] for q in data.load_factbook_questions("unanswerable")]
points["no answer"] = search.unit_vectors(texts["no answer"], encoder, tokenizer)
best = {kind: (points[kind] @ vectors.T).amax(1) for kind in ("written", "by rule", "no answer")}
for threshold in (0.5, 0.6, 0.7):
    spoke = {kind: (cosine >= threshold).float().mean() for kind, cosine in best.items()}
    print(f"from {threshold}:", ", ".join(f"{kind} {share:.2f}" for kind, share in spoke.items()))

# %% [markdown]
# FINDINGS4

# %% [markdown]
# ## 3 · A chat
#
# SmolLM2 has 135 million weights, here in 8 bits with 8-bit inputs (its file came to us with 4 bits already, chapter 13). A chat is one growing text: each turn puts a question behind all that was said, in the form that the model was tuned on, and asks for what follows. What can go wrong is in the program around the model:
#
# - The text outgrows the window. `fitting` keeps the system's message and as many of the last turns as fit, whole ones: cut in its middle, an answer would stand there without its question.
# - Each turn reads the whole history again. Two turns begin alike, so the keys and values of that beginning are still right (chapter 13). `Remembering` compares the new text with what it holds, forgets what differs, and reads the rest.
# - A **stop word** ends an answer, though it may come in pieces: it must never be shown, not in part either.

# %%
smollm2, smol_words = models.load_smollm2(), models.load_smollm2_tokenizer()
quantization.quantize_(smollm2, 8, activations=8, embeddings=8)
chat = replies.Remembering(generation.jit(smollm2))
history = [{"role": "system", "content": "You answer in one sentence."}]
for place_ in ("a lighthouse", "a forest", "a harbour", "a mill"):
    history += [{"role": "user", "content": f"Tell me something about {place_}, please."}]
    history += [{"role": "assistant", "content": f"There was {place_}, and it was very old."}]
history += [{"role": "user", "content": "Which of them was the oldest?"}]
cut = replies.fitting(smol_words, history, 150)
print([message["content"] for message in cut if message["role"] != "assistant"])

# %% [markdown]
# **Predict:** the full history is read. Then "The mill." is answered, and "How old?" asked. What share of all tokens is read in this turn?

# %% atol=0.03
guess = ...  # a share, 0 to 1
ids = [smol_words(replies.prompt(smol_words, history))["input_ids"]]
more = [{"role": "assistant", "content": "The mill."}, {"role": "user", "content": "How old?"}]
ids.append(smol_words(replies.prompt(smol_words, history + more))["input_ids"])
chat.begin().read(torch.tensor(ids[:1]))
same = len(os.path.commonprefix(ids))
again = chat.begin().read(torch.tensor(ids[1:]))
fresh = generation.begin(generation.jit(smollm2)).read(torch.tensor(ids[1:]))
assert (fresh - again).abs().max() < 0.1 * fresh.std()
compare(guess, f"{1 - same / len(ids[1]):.2f}", how="computed")

# %% [markdown]
# The logits are those of a model that reads all of it (the `assert`). When an old turn has been left out, everything behind it stands at other places, and is read anew: that is the price of a full window.
#
# Whether an answer is *good* is hard to say. Whether it names the right capital is not. The control judges the same answers by the *next* country's capital, so that we see whether the judge is too generous. And one answer in between has a stop word, a full stop, which no token of its own may hold:

# %% atol=0.05
capitals = {"France": "Paris", "Japan": "Tokyo", "Egypt": "Cairo", "Kenya": "Nairobi"}
capitals |= {"Spain": "Madrid", "Peru": "Lima", "Greece": "Athens", "Poland": "Warsaw"}
capitals |= {"Mongolia": "Ulaanbaatar", "Ghana": "Accra"}
said = {}
for land in capitals:
    question = [{"role": "user", "content": f"What is the capital of {land}?"}]
    said[land] = "".join(replies.answer(chat, smol_words, question, 24, stop=["."]))
assert not any("." in text for text in said.values())
cities = list(capitals.values())
named = sum(city in text for city, text in zip(cities, said.values(), strict=True))
next_ones = zip(cities[1:] + cities[:1], said.values(), strict=True)
assert named >= 6 and sum(city in text for city, text in next_ones) <= 1
print(said["France"], "|", said["Kenya"])

# %% [markdown]
# FINDINGS5
#
# In a terminal it goes on as long as you like: `python -m lightcourse.applications.chat --bits 4`.

# %% [markdown]
# ## 4 · Summaries
#
# The plainest summary is the **lead**: the first two sentences. It needs no model, and writers of news and of handbooks put first what matters. Whatever takes a model must be better than that.
#
# Overlap with a reference is measured by **ROUGE** (Lin 2004): ROUGE-1 counts the words that both share, ROUGE-2 the pairs of neighbours; of both we take F1, so that long summaries pay for their length. No free summaries come with our data. The 24 references, two sentences each for 24 introductions of the Factbook, were written for this course by one writer before any program was run. Another writer would choose other words, so only *differences* between programs mean something.

# %%
cases = data.load_summaries()
passages = [summaries.sentences(text) for text in cases["text"]]
print(f"{len(passages)} passages of {min(map(len, passages))} to {max(map(len, passages))} sentences")
pair = "police killed the gunman", "the gunman killed police"
print(f"ROUGE-1 {metrics.rouge(*pair)}, ROUGE-2 {metrics.rouge(*pair, 2):.2f}")

# %% [markdown]
# (Who killed whom makes no difference to ROUGE-1. It judges words, not truth.)
#
# MiniLM makes a vector of each sentence, and two programs choose by them: the sentences that are most like all others (**centrality**), and, one by one, those that are like the whole but unlike what was chosen before (**MMR**, Carbonell & Goldstein 1998).


# %%
def chosen(encoder):
    """Return two sentences' places in each passage: by centrality, and by MMR."""
    given = [search.unit_vectors(one, encoder, tokenizer) for one in passages]
    return [[pick(f, 2) for f in given] for pick in (summaries.central, summaries.diverse)]


dice = random.Random(0)
places = {"lead": [summaries.lead(2, len(one)) for one in passages]}
places["by lot"] = [sorted(dice.sample(range(len(one)), 2)) for one in passages]
floats = models.load_minilm()
places["centrality"], places["MMR"] = chosen(floats)
light = chosen(encoder)

# %% [markdown]
# **Predict:** which of the four has the largest overlap with the references?

# %% atol=0.03
guess = ...  # "lead", "by lot", "centrality" or "MMR"
rouge, drawn = {}, torch.randint(24, (2000, 24), generator=torch.Generator().manual_seed(0))
for name, where in places.items():
    made = [" ".join(one[i] for i in at) for one, at in zip(passages, where, strict=True)]
    pairs = list(zip(made, cases["summary"], strict=True))
    rouge[name] = torch.tensor([metrics.rouge(*pair) for pair in pairs])
    gaps = (rouge[name] - rouge["lead"])[drawn].mean(1)
    low, high = gaps.quantile(torch.tensor([0.025, 0.975])).tolist()
    print(f"{name:10} ROUGE-1 {rouge[name].mean():.2f}, beyond the lead {low:+.2f} to {high:+.2f}")
compare(guess, max(rouge, key=lambda name: rouge[name].mean()))

# %% [markdown]
# FINDINGS6

# %% atol=0.05
for name, where in zip(("centrality", "MMR"), light, strict=True):
    other = sum(len(set(a) - set(b)) for a, b in zip(places[name], where, strict=True)) / 48
    print(f"{name:10} with 8 bits: a share of {other:.2f} are other sentences")
    assert other < 0.25

# %% [markdown]
# FINDINGS7

# %% [markdown]
# ## 5 · Opinions, in Chinese
#
# MiniLM was trained on English. What does it make of Chinese? Its vocabulary of 30,522 pieces holds few Chinese characters. Every other one becomes `[UNK]`, the same for all:

# %%
chinese = data.load_chinese_reviews()
for text in ("这本书很好看", "房间太小，服务态度差"):
    print(text, tokenizer.tokenize(text))
ids = tokenizer(chinese["test"]["text"][:1000], add_special_tokens=False, truncation=True)
ids = [i for row in ids["input_ids"] for i in row]
print(f"{ids.count(tokenizer.unk_token_id) / len(ids):.0%} of the tokens are unknown")

# %% [markdown]
# "Use a larger model" is one answer. A plainer one needs no vocabulary at all: each character and each pair of neighbours is hashed into one of 65,536 rows of a table; their vectors are averaged, and a linear head decides (the shape of fastText, Joulin et al. 2016, arXiv 1607.01759). It is trained in the next cell, in seconds. The baseline counts the same pieces.

# %%
train, test = chinese["train"], chinese["test"]
judged, opinions = torch.tensor(test["label"][:]), test["text"][:]


def counted(_):
    """Return a model that counts characters and pairs, trained on the same reviews."""
    counts = TfidfVectorizer(analyzer="char", ngram_range=(1, 2), sublinear_tf=True, min_df=2)
    model = make_pipeline(counts, LogisticRegression(C=10, max_iter=300))
    return model.fit(train["text"][:], train["label"][:])


def trained(_):
    """Return a hashed bag of the same pieces."""
    return sentiment.train_bag(train["text"][:], train["label"][:])


counting, bag = each(lambda make: make(None), (counted, trained))

# %% atol=0.03
opinion = {"counting": torch.tensor(counting.predict(opinions))}
opinion["bag"] = sentiment.answers(bag, opinions)
sizes = {"counting": 12 * len(counting[0].vocabulary_), "bag": metrics.size_in_bytes(bag)}
for bits, group in ((8, None), (4, 16)):
    small, name = copy.deepcopy(bag), f"bag, {bits} bits"
    quantization.quantize_(small, 8, group, embeddings=bits)
    opinion[name], sizes[name] = sentiment.answers(small, opinions), metrics.size_in_bytes(small)
for name, given in opinion.items():
    print(f"{name:12} {metrics.accuracy(given, judged):.3f}")
print({name: size for name, size in sizes.items() if name != "counting"})

# %% [markdown]
# FINDINGS8
