"""Trains the demo model: train.py DIR [--steps N]

DIR gets tokenizer.json, checkpoint.pt (to go on from) and log.txt.  The rate is
level for a fifth of the steps and then falls to nothing.  A run that was stopped
goes on from its last checkpoint.  Matrices are trained with Muon, the rest with
AdamW.  Everything depends on --seed and the step only.
"""
import argparse
import os
import time

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer

import vocab
from lessons import conversation
from model import Llama, Shape


class Stream:
    """Packs whole conversations into rows; what comes next depends on `at` alone."""

    POOL = 256

    def __init__(self, tokenizer, seed, at=0):
        self.tokenizer, self.seed, self.at = tokenizer, seed, at
        self.pool = []  # of (ids, learn), in the order of the stream

    def fill(self):
        parts, ends = [], []
        for i in range(self.POOL - len(self.pool)):
            parts += conversation(self.at + i, self.seed)
            ends.append(len(parts))
        self.at += len(ends)
        codes = self.tokenizer.encode_batch_fast([t for t, _ in parts])
        begin = 0
        for end in ends:
            ids, learn = [], []
            for code, (_, l) in zip(codes[begin:end], parts[begin:end]):
                ids += code.ids
                learn += [l] * len(code.ids)
            self.pool.append((ids, learn))
            begin = end

    def row(self, length):
        """The pool's first conversation, then always the longest that still fits:
        token ids, which are to be learnt, and the number of each one's conversation."""
        ids, learn = self.pool.pop(0)
        ids, learn = ids[:length], learn[:length]
        part, n = [0] * len(ids), 0
        while True:
            n, room = n + 1, length - len(ids)
            best = max((i for i, p in enumerate(self.pool) if len(p[0]) <= room),
                       key=lambda i: len(self.pool[i][0]), default=None)
            if best is None:
                return ids + [0] * room, learn + [0] * room, part + [n] * room
            more = self.pool.pop(best)
            ids, learn, part = ids + more[0], learn + more[1], part + [n] * len(more[0])

    def batch(self, rows, length):
        """ids, targets, mask of the targets to learn, part, each [rows, length]."""
        packed = []
        for _ in range(rows):
            self.fill()
            packed.append(self.row(length + 1))
        ids, learn, part = (torch.tensor(x) for x in zip(*packed))
        return ids[:, :-1], ids[:, 1:], learn[:, 1:].bool(), part[:, :-1]

    def state(self):
        return {"at": self.at, "pool": self.pool}

    def restore(self, state):
        self.at, self.pool = state["at"], state["pool"]


class Muon(torch.optim.Optimizer):
    """Momentum whose step is made orthogonal by Newton-Schulz (K. Jordan, 2024), in
    F32: PyTorch's own is in BF16, which takes seconds on a CPU without it."""

    def __init__(self, params, lr, momentum=0.95):
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @staticmethod
    def orthogonal(x):
        """x [n, rows, columns], rows <= columns; singular values go to about 1."""
        x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
        for _ in range(5):
            a = x @ x.transpose(1, 2)
            x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
        return x

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            shapes = {}
            for p in group["params"]:
                buf = self.state[p].setdefault("momentum", torch.zeros_like(p))
                buf.lerp_(p.grad, 1 - group["momentum"])
                g = p.grad.lerp(buf, group["momentum"])
                g = g if g.shape[0] <= g.shape[1] else g.t()
                shapes.setdefault(g.shape, []).append((p, g))
            for rows in shapes.values():
                steps = self.orthogonal(torch.stack([g for _, g in rows]))
                for (p, _), o in zip(rows, steps):
                    o = o if o.shape == p.shape else o.t()
                    scale = max(1.0, p.shape[0] / p.shape[1]) ** 0.5
                    p.add_(o, alpha=-group["lr"] * scale)


def optimizers(model):
    matrices = [p for n, p in model.named_parameters() if p.dim() == 2 and "embed" not in n]
    rest = [p for n, p in model.named_parameters() if p.dim() != 2 or "embed" in n]
    return [Muon(matrices, lr=0.012),
            torch.optim.AdamW(rest, lr=2e-3, betas=(0.9, 0.98), weight_decay=0.0)]


def rate(step, steps):
    """Part of the full learning rate: up, level for a while, then down to nothing."""
    return min(1.0, (step + 1) / 100, ((steps - step) / (0.8 * steps)) ** 1.5)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("dir")
    p.add_argument("--steps", type=int, default=6600)
    p.add_argument("--rows", type=int, default=8)
    p.add_argument("--length", type=int, default=384)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--stop", type=int, default=0, help="end after this step, to go on later")
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    p.add_argument("--layers", type=int, default=4)
    a = p.parse_args()
    os.makedirs(a.dir, exist_ok=True)
    torch.manual_seed(a.seed)

    path = os.path.join(a.dir, "tokenizer.json")
    if not os.path.exists(path):
        vocab.train().save(path)
    tokenizer = Tokenizer.from_file(path)
    model = Llama(Shape(layers=a.layers)).to(a.device)
    opts = optimizers(model)
    full = [[g["lr"] for g in o.param_groups] for o in opts]
    stream = Stream(tokenizer, a.seed)
    step = 0
    path = os.path.join(a.dir, "checkpoint.pt")
    if os.path.exists(path):
        c = torch.load(path, weights_only=True)
        model.load_state_dict(c["model"])
        for o, s in zip(opts, c["opts"]):
            o.load_state_dict(s)
        stream.restore(c["stream"])
        step = c["step"]

    def save():
        torch.save({"model": model.state_dict(), "opts": [o.state_dict() for o in opts],
                    "stream": stream.state(), "step": step, "layers": a.layers}, path + ".new")
        os.replace(path + ".new", path)

    log = open(os.path.join(a.dir, "log.txt"), "a")
    began, tokens, losses = time.time(), 0, []
    while step < (a.stop or a.steps):
        # one step of eight sees whole contexts, so that long chats hold
        rows, length = (a.rows, a.length)
        if step % 8 == 7:
            length = model.s.context
            rows = max(1, a.rows * a.length // length)
        ids, want, at, part = (x.to(a.device) for x in stream.batch(rows, length))
        loss = F.cross_entropy(model(ids, at, part), want[at])
        for o, lrs in zip(opts, full):
            o.zero_grad(set_to_none=True)
            for g, lr in zip(o.param_groups, lrs):
                g["lr"] = lr * rate(step, a.steps)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for o in opts:
            o.step()
        step += 1
        tokens += ids.numel()
        losses.append(loss.item())
        if step % 50 == 0 or step == 1:
            line = (f"step {step} loss {sum(losses) / len(losses):.4f} tokens/s "
                    f"{tokens / (time.time() - began):.0f} minutes {(time.time() - began) / 60:.1f}")
            print(line, flush=True)
            print(line, file=log, flush=True)
            losses = []
        if step % 250 == 0:
            save()
    save()


if __name__ == "__main__":
    main()
