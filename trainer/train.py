"""Pretrain a small GPT in a fixed budget. This is the file that researchers edit: all of it is theirs.

It reads from top to bottom: the knobs, the model, the optimizers, the schedule, the loop. The goal is the lowest
validation bits per byte when the budget is used up. `trainer/lab.py` says what the outside world offers.
"""

import torch
import torch.nn.functional as F
from torch import nn

from trainer import lab

# Knobs. The comment gives the meaning and the range that a parameter search may use.
NUM_LAYERS = 1  # transformer blocks; search: int(1, 8)
MODEL_WIDTH = 64  # residual stream; a multiple of HEAD_WIDTH; search: int(64, 320, 64)
HEAD_WIDTH = 64  # width of one attention head; search: choice(16, 32, 64)
MLP_RATIO = 2  # hidden width of the MLP over MODEL_WIDTH; search: int(1, 6)
BIGRAM_ROWS = 32768  # rows of the table of hashed token pairs; search: choice(1024, 4096, 8192, 16384, 32768, 65536)
BATCH_SIZE = 32  # sequences in a step; search: int(4, 64, 4)
MATRIX_LR = 0.03  # Muon, all matrices inside the blocks; search: log(0.002, 0.2)
EMBED_LR = 0.3  # AdamW, all embeddings; search: log(0.005, 1.0)
HEAD_LR = 0.03  # AdamW, output layer; search: log(0.0005, 0.1)
SCALAR_LR = 0.01  # AdamW, mixing weights; search: log(0.001, 0.1)
MOMENTUM = 0.9  # Muon; search: float(0.7, 0.98)
ADAM_BETA1 = 0.8  # search: float(0.5, 0.95)
ADAM_BETA2 = 0.99  # search: float(0.8, 0.999)
WEIGHT_DECAY = 0.0  # Muon's matrices, per unit of learning rate; search: float(0.0, 0.5)
WARMUP = 0.02  # share of the budget in which learning rates rise; search: float(0.0, 0.2)
WARMDOWN = 0.6  # share of the budget in which they fall; search: float(0.1, 1.0)
FINAL_LR = 0.05  # where they end, relative to their peak; search: float(0.0, 0.3)

SNAPSHOT_AT = 0.8  # share of the budget after which a snapshot is saved, in case the last one comes too late


def norm(x):
    return F.rms_norm(x, (x.size(-1),))


def fast(x):
    """`x` in the dtype of matrix products here: what lies between two of them need not be converted twice."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x


class Attention(nn.Module):
    """Causal attention with rotary positions (Su et al., 2021) and normalised queries and keys.

    The values also get an embedding of the token itself, which costs a lookup and no multiplication.
    """

    def __init__(self, vocab_size):
        super().__init__()
        self.qkv = nn.Parameter(torch.empty(3, MODEL_WIDTH, MODEL_WIDTH))  # a stack: Muon treats each on its own
        self.out = nn.Parameter(torch.zeros(MODEL_WIDTH, MODEL_WIDTH))
        self.value_embedding = nn.Embedding(vocab_size, MODEL_WIDTH)
        nn.init.uniform_(self.qkv, -((3 / MODEL_WIDTH) ** 0.5), (3 / MODEL_WIDTH) ** 0.5)
        nn.init.normal_(self.value_embedding.weight, std=0.5)

    def forward(self, x, tokens, rotary):
        shape = (*tokens.shape, -1, HEAD_WIDTH)
        q, k, v = F.linear(x, self.qkv.flatten(0, 1)).view(*tokens.shape, 3, -1).unbind(2)
        v = (v + self.value_embedding(tokens)).to(v.dtype)
        q, k = (rotate(norm(y.view(shape)), rotary) for y in (q, k))
        y = attend(q.transpose(1, 2), k.transpose(1, 2), v.view(shape).transpose(1, 2))
        return F.linear(y.transpose(1, 2).flatten(2), self.out)


def rotate(x, rotary):
    cos, sin = rotary.to(x.dtype)
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1)


def attend(q, k, v):
    """Causal attention on [B, heads, T, HEAD_WIDTH]."""
    if q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    # The fused kernel for CPUs takes three times as long at such short sequences.
    future = torch.full((q.size(2), q.size(2)), float("-inf"), dtype=q.dtype).triu(1)
    scores = torch.baddbmm(future, q.flatten(0, 1), k.flatten(0, 1).mT, alpha=HEAD_WIDTH**-0.5)
    return (scores.softmax(-1, dtype=q.dtype) @ v.flatten(0, 1)).view(q.shape)


class MLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = nn.Parameter(torch.empty(MLP_RATIO * MODEL_WIDTH, MODEL_WIDTH))
        self.down = nn.Parameter(torch.zeros(MODEL_WIDTH, MLP_RATIO * MODEL_WIDTH))
        nn.init.uniform_(self.up, -((3 / MODEL_WIDTH) ** 0.5), (3 / MODEL_WIDTH) ** 0.5)

    def forward(self, x):
        return F.linear(F.relu(F.linear(x, self.up)).square(), self.down)


class Block(nn.Module):
    def __init__(self, vocab_size):
        super().__init__()
        self.attention = Attention(vocab_size)
        self.mlp = MLP()
        self.input_mix = nn.Parameter(torch.tensor([1.0, 0.0]))
        self.previous_mix = nn.Parameter(torch.zeros(MODEL_WIDTH))

    def forward(self, x, x0, tokens, rotary):
        x = self.input_mix[0] * x + self.input_mix[1] * x0 + self.previous_mix * shift(x)
        x = x + self.attention(norm(x), tokens, rotary)
        return x + self.mlp(norm(x))


class GPT(nn.Module):
    def __init__(self, task):
        super().__init__()
        self.embedding = nn.Embedding(task.vocab_size, MODEL_WIDTH)
        self.bigram_embedding = nn.Embedding(BIGRAM_ROWS, MODEL_WIDTH)
        self.blocks = nn.ModuleList(Block(task.vocab_size) for _ in range(NUM_LAYERS))
        self.head = nn.Linear(MODEL_WIDTH, task.vocab_size, bias=False)
        nn.init.normal_(self.embedding.weight)
        nn.init.zeros_(self.bigram_embedding.weight)
        nn.init.zeros_(self.head.weight)  # the first prediction is uniform
        frequencies = 1024.0 ** -torch.linspace(0, 1, HEAD_WIDTH // 2)
        angles = torch.outer(torch.arange(task.sequence_length), frequencies)
        self.register_buffer("rotary", torch.stack((angles.cos(), angles.sin())), persistent=False)

    def forward(self, tokens):
        """Logits[B, T, V] for the token that follows each of int64[B, T]: float32, in training what the head gives."""
        rotary = self.rotary[:, : tokens.size(1), None]
        x = x0 = fast(norm(self.embedding(tokens) + self.bigram_embedding(bigrams(tokens))))
        for block in self.blocks:
            x = block(x, x0, tokens, rotary)
        logits = self.head(norm(x))
        return logits if self.training else logits.float()


def shift(x):
    """Each position gets what the one before it holds."""
    return F.pad(x[:, :-1], (0, 0, 1, 0))


def bigrams(tokens):
    """A row of the bigram table for each token and the one before it: a pair seen often gets features of its own."""
    previous = F.pad(tokens[:, :-1], (1, 0))
    return (previous * 36313 + tokens * 27191) % BIGRAM_ROWS


def build_model(task):
    return GPT(task)


class Muon(torch.optim.Optimizer):
    """Momentum whose update is replaced by the nearest orthogonal matrix (Jordan et al., 2024), for weight matrices.

    Parameters of one shape are updated together, as one batch of matrices.
    """

    def __init__(self, params, lr, momentum, weight_decay):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for shape in sorted({p.shape[-2:] for p in group["params"]}):
                self.step_shape(group, [p for p in group["params"] if p.shape[-2:] == shape], shape)

    def step_shape(self, group, params, shape):
        gradient = torch.cat([p.grad.view(-1, *shape) for p in params])
        state = self.state[params[0]]
        if not state:
            state["momentum"] = torch.zeros_like(gradient)
        state["momentum"].lerp_(gradient, 1 - group["momentum"])
        update = orthogonalize(gradient.lerp(state["momentum"], group["momentum"]))  # Nesterov
        # Keeps the size of the change of each output independent of the shape.
        update *= group["lr"] * max(1, shape[0] / shape[1]) ** 0.5
        for p, u in zip(params, update.split([p.numel() // shape.numel() for p in params]), strict=True):
            p.mul_(1 - group["lr"] * group["weight_decay"]).sub_(u.view_as(p))


# Polar Express (Amsel et al., 2025): odd polynomials of degree 5 that, one after the other, take singular values from
# [0.001, 1] to about 1. Scaled down by 1.02 for the rounding of bfloat16.
POLAR_EXPRESS = (
    (8.1566, -22.4833, 15.8788),
    (4.0429, -2.8089, 0.5000),
    (3.8917, -2.7725, 0.5061),
    (3.2858, -2.3681, 0.4645),
    (2.3465, -1.7098, 0.4232),
)


def orthogonalize(matrices):
    """The nearest (semi-)orthogonal matrix to each of [n, rows, columns], approximately."""
    x = fast(matrices)
    tall = x.size(1) > x.size(2)
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(1, 2), keepdim=True) * 1.02 + 1e-7)
    for a, b, c in POLAR_EXPRESS:
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def build_optimizers(model):
    matrices, scalars, embeddings = [], [], []
    for name, p in model.named_parameters():
        if name.startswith("head"):
            continue
        (embeddings if "embedding" in name else matrices if p.ndim >= 2 else scalars).append(p)
    adam_groups = [
        {"params": embeddings, "lr": EMBED_LR},
        {"params": [model.head.weight], "lr": HEAD_LR},
        {"params": scalars, "lr": SCALAR_LR},
    ]
    adam = torch.optim.AdamW(adam_groups, betas=(ADAM_BETA1, ADAM_BETA2), eps=1e-10, weight_decay=0.0, fused=True)
    optimizers = [Muon(matrices, lr=MATRIX_LR, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY), adam]
    for group in (group for optimizer in optimizers for group in optimizer.param_groups):
        group["peak_lr"] = group["lr"]
    return optimizers


def lr_factor(progress):
    """Learning rate relative to its peak: up, flat, then straight down."""
    if progress < WARMUP:
        return (progress + 0.1 * WARMUP) / (1.1 * WARMUP)
    if progress < 1 - WARMDOWN:
        return 1.0
    return FINAL_LR + (1 - FINAL_LR) * (1 - progress) / WARMDOWN


def batches(tokens, task, device):
    """Endless (inputs, targets), int64[BATCH_SIZE, T], each window once and in random order before any comes again.

    As in the evaluation, the first input of a window is BOS and the rest is the window shifted by one.
    """
    windows = tokens[: len(tokens) // task.sequence_length * task.sequence_length].view(-1, task.sequence_length)
    while True:
        for rows in torch.randperm(len(windows)).split(BATCH_SIZE):
            if len(rows) == BATCH_SIZE:
                targets = torch.stack([windows[row] for row in rows.tolist()]).to(device).long()
                yield F.pad(targets[:, :-1], (1, 0), value=task.bos_token), targets


class CrossEntropy(torch.autograd.Function):
    """Mean cross-entropy, in nats, of logits[N, V] and targets int64[N].

    The logits are the largest tensor by far: PyTorch's own passes over them in float32 are a sixth of a step on a CPU.
    Here the probabilities are computed once, in the dtype of the logits, and less one at each target they are the
    gradient, in place. So `backward` can be called only once.
    """

    @staticmethod
    def forward(ctx, logits, targets):
        probabilities = logits.softmax(-1)
        ctx.save_for_backward(probabilities, targets)
        return -probabilities.gather(1, targets[:, None]).float().log().mean()

    @staticmethod
    def backward(ctx, gradient):
        probabilities, targets = ctx.saved_tensors
        probabilities[torch.arange(len(targets), device=targets.device), targets] -= 1
        return probabilities.mul_(gradient / len(targets)), None


def loss_of(model, inputs, targets, run):
    with run.autocast():
        logits = model(inputs)
    return CrossEntropy.apply(logits.flatten(0, 1), targets.flatten())


def warm_up(model, run):
    """One step without effect, so that compilation and first-call costs fall before the clock starts."""
    tokens = torch.randint(run.task.vocab_size, (BATCH_SIZE, run.task.sequence_length), device=run.device)
    loss_of(model, tokens, tokens, run).backward()
    model.zero_grad(set_to_none=True)


def main():
    run = lab.open()
    model = build_model(run.task).to(run.device)
    optimizers = build_optimizers(model)
    train_model = torch.compile(model) if run.task.compile else model
    warm_up(train_model, run)

    data = batches(run.start(), run.task, run.device)
    step, last, longest, with_snapshot, saved = 0, 0.0, 0.0, 0.0, False
    while True:
        progress = run.progress()
        # Stop while there is surely time for the last snapshot. A stall counts for some dozens of steps only.
        longest = max(0.95 * longest, progress - last)
        if saved and not with_snapshot:
            with_snapshot = progress - last
        last = progress
        if progress + 1.5 * max(longest, with_snapshot) >= 1:
            break

        loss = loss_of(train_model, *next(data), run)
        loss.backward()
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak_lr"] * lr_factor(progress)
            with run.autocast():
                optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        step += 1
        run.log(step=step, loss=loss.detach(), tokens=step * BATCH_SIZE * run.task.sequence_length)
        if not saved and progress >= SNAPSHOT_AT:
            run.save(model)
            saved = True
    run.save(model)


if __name__ == "__main__":
    main()
