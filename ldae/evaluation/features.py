# SPDX-License-Identifier: Apache-2.0
"""Features of a frozen encoder: of its last block or of several, from one pass over images or over a data set."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial

import torch
from mmengine.dist import all_gather, is_main_process
from mmpretrain.models import BaseSelfSupervisor, MAEViT
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from ldae.models import LDAE, LDAEDecoder, LDAEViT
from ldae.models.noisers import noise_of_images
from ldae.utils import ConfigError, check_range
from ldae.utils.models import changed, unwrapped


def pooled_features(model: nn.Module, images: Tensor) -> Tensor:
    """Average of the patch tokens of the last block: images (B, C, H, W) -> (B, embed_dims).

    ``model`` is a pre-training model (l-DAE, MAE, ...), a classifier (its backbone counts), or a backbone of mmpretrain
    or timm. Class and other extra tokens are left out. MAE's encoder sees every patch."""
    backbone = backbone_of(model)
    return _pool(_forward_unmasked(model, backbone, images), backbone)


def block_tokens(model: nn.Module, images: Tensor, block: int | None = None) -> Tensor:
    """Patch tokens after one block, by default the last: images (B, C, H, W) -> (B, N, embed_dims).

    ``model`` and ``block`` as of :func:`block_features`. Raises ConfigError for a network that has none."""
    blocks = blocks_of(model, None if block is None else [block])
    return features_of_blocks(model, images, blocks, tokens=True)[1]


def block_features(
    model: nn.Module, images: Tensor, blocks: Sequence[int] | None = None, pooling: str | Sequence[str] = 'mean'
) -> Tensor:
    """Features after each of ``blocks``, from one forward pass: (B, C, H, W) -> (B, L, embed_dims), or for several
    poolings (B, L, P, embed_dims). Raises ConfigError for a number out of range, a pooling that the encoder doesn't have,
    or features of different widths, which don't fit into one tensor.

    Args:
        model: As :func:`pooled_features` takes it; of a convolutional network, blocks are its stages.
        blocks: Numbers from 1 to the depth, or negative ones from the end; None takes the last. The last block's features
            are those of :func:`pooled_features`: the encoder's final norm, if it has one, counts to it. Of an l-DAE, numbers
            beyond the depth are blocks of the decoder.
        pooling: One of :func:`poolings_of`: ``'mean'`` of the patch tokens, the class token (``'cls'``), or of the last block
            the encoder's ``'own'`` pooled output; or a list of these.
    """
    features = features_of_blocks(model, images, blocks_of(model, blocks), pooling=pooling)
    widths = {rows.shape[1] for rows in features}
    if len(widths) > 1:
        raise ConfigError(f'blocks={blocks} have {sorted(widths)} channels: ask for one of them at a time')
    rows = torch.stack(features, dim=1)
    return rows if isinstance(pooling, str) else rows.unflatten(1, (len(pooling), -1)).transpose(1, 2)


def features_of_blocks(
    model: nn.Module,
    images: Tensor,
    blocks: Sequence[int],
    forward: Callable[[], Tensor | tuple[Tensor, ...]] | None = None,
    pooling: str | Sequence[str] = 'mean',
    tokens: bool = False,
    timestep: int | None = None,
) -> list[Tensor]:
    """As :func:`block_features`, for positive block numbers: one (B, C) a block, of whatever width, pooling by pooling;
    with ``tokens`` followed by the patch tokens (B, N, C) of each block.

    ``forward`` runs the encoder another way than on clean images at its own time step; ``timestep`` is then the decoder's."""
    backbone, depth = backbone_of(model), num_blocks(model)
    poolings = [pooling] if isinstance(pooling, str) else list(pooling)
    for name in poolings:
        check_pooling(model, name, blocks)
    is_whole = tokens or poolings != ['mean']

    def take(output: Tensor | Sequence) -> list[Tensor]:
        pooled = [_pool(output, backbone, name) for name in poolings]
        return [*pooled, *([_tokens(output, backbone)] if tokens else [])]

    parts = [*encoder_parts(backbone), *(decoder_of(model).layers if max(blocks) > depth else ())]
    watched = {block: parts[block - 1] for block in blocks if block != depth}

    def take_inside(block: int, output: Tensor | Sequence) -> list[Tensor]:
        hidden = num_registers(backbone) if block < depth else 0
        return take(output[:, hidden:] if hidden else output)

    with _watched(watched, take_inside) as found, _raw(backbone, is_whole):
        output = _forward_unmasked(model, backbone, images) if forward is None else forward()
        if max(blocks) > depth:
            step = backbone.timestep if timestep is None else timestep
            encoded, masking = _last(output), getattr(unwrapped(model), 'masking', None)
            if masking is not None:  # whose decoder is told the places of what it gets
                encoded = masking.restore(encoded, None, encoded)
            decoder_of(model)(encoded, torch.full((1,), step, device=images.device))
    if depth in blocks:
        found[depth] = take(output)
        if is_whole and 'mean' in poolings and getattr(backbone, 'out_type', None) == 'avg_featmap':
            place = poolings.index('mean')  # mmpretrain's backbones normalise the average
            found[depth][place] = backbone.ln2(found[depth][place])
    return [found[block][i] for i in range(len(poolings) + tokens) for block in blocks]


def poolings_of(model: nn.Module) -> tuple[str, ...]:
    """The ways from an encoder's tokens to one vector: ``'mean'`` of its patch tokens or cells, ``'cls'`` if it has a
    class token, and ``'own'`` if it has a pooled output that is neither."""
    backbone = backbone_of(model)
    has_class = getattr(backbone, 'has_class_token', getattr(backbone, 'cls_token', None) is not None)
    has_own = getattr(backbone, 'has_pooler', hasattr(backbone, 'forward_head'))
    if isinstance(getattr(backbone, 'fc_norm', None), nn.Identity):  # of timm's ViTs
        has_own &= backbone.global_pool not in ('token', 'avg', '')  # which are the others
    return ('mean', *(['cls'] if has_class else []), *(['own'] if has_own else []))


def check_pooling(model: nn.Module, pooling: str, blocks: Sequence[int]) -> None:
    """Raise ConfigError unless an encoder has a pooling, after these blocks (positive numbers)."""
    if pooling not in (known := poolings_of(model)):
        raise ConfigError(f'pooling={pooling}: {type(backbone_of(model)).__name__} has {" and ".join(known)} only')
    if pooling == 'own' and set(blocks) != {num_blocks(model)}:
        raise ConfigError("pooling=own is that of the last block: leave other blocks out, or take 'mean' or 'cls'")


def features_of_settings(
    model: nn.Module,
    images: Tensor,
    blocks: Sequence[int],
    timesteps: Sequence[int | None],
    noisy: Sequence[bool],
    index: Sequence[int],
    pooling: str = 'mean',
    tokens: bool = False,
) -> Iterator[list[Tensor]]:
    """Features of one batch at each time step on each kind of input (the inner loop): lists as of
    :func:`features_of_blocks`.

    ``index`` numbers the images: an image's noise follows from its number alone, and is the same at each time step."""
    if tuple(timesteps) == (None,):
        yield features_of_blocks(model, images, blocks, None, pooling, tokens)
        return
    model, latents, noise = unwrapped(model), None, None
    if isinstance(model, LDAE):
        latents = model.tokenizer.encode(images)
        noise = noise_of_images(index, latents) if any(noisy) else None
    for timestep in timesteps:
        t = torch.full((1,), timestep, device=images.device)
        for noised in noisy:
            inputs = images
            if latents is not None:
                z = model.noiser(latents, t.expand(len(latents)), noise=noise).z_t if noised else latents
                inputs = model._encoder_input(z)
            forward = partial(backbone_of(model), inputs, t)
            yield features_of_blocks(model, images, blocks, forward, pooling, tokens, timestep)


def resolve_inputs(
    model: nn.Module, timesteps: Sequence[int] | None, noisy: Sequence[bool]
) -> tuple[tuple[int | None, ...], tuple[bool, ...]]:
    """Time steps and inputs that a model can be asked for; without time steps, its own. Raises ConfigError for a model
    that has no time steps, or no noise, or for a step out of range."""
    model, backbone = unwrapped(model), backbone_of(model)
    if any(noisy) and not isinstance(model, LDAE):
        raise ConfigError(f'noisy: {type(model).__name__} adds no noise: only an l-DAE has noisy input')
    if not noisy or (timesteps is not None and not len(timesteps)):
        raise ConfigError('timesteps and noisy need at least one value each')
    if not isinstance(backbone, LDAEViT) or not (backbone.conditioned or isinstance(model, LDAE)):
        if timesteps is not None and tuple(timesteps) != (None,):
            raise ConfigError(f'timesteps={list(timesteps)}: {type(backbone).__name__} has no time step')
        return (None,), tuple(noisy)
    timesteps = (backbone.timestep,) if timesteps in (None, (None,), [None]) else tuple(timesteps)
    for t in timesteps:
        check_range('timesteps', t, 0, backbone.num_timesteps - 1, kind=int)
    return timesteps, tuple(bool(value) for value in noisy)


def backbone_of(model: nn.Module) -> nn.Module:
    """The encoder inside a pre-training model or classifier, or the model itself."""
    model = unwrapped(model)
    return getattr(model, 'backbone', model)


def num_blocks(model: nn.Module) -> int:
    """Blocks of a ViT, stages of a convolutional network; 1 for a network that shows no parts."""
    return max(1, len(encoder_parts(backbone_of(model))))


def decoder_of(model: nn.Module) -> LDAEDecoder | None:
    """The decoder of an l-DAE, whose blocks count on from the encoder's."""
    neck = getattr(unwrapped(model), 'neck', None)
    return neck if isinstance(neck, LDAEDecoder) else None


def blocks_of(model: nn.Module, blocks: Sequence[int] | None) -> list[int]:
    """:func:`resolve_blocks` of a model, its decoder's among them."""
    return resolve_blocks(num_blocks(model), blocks, num_decoder_blocks(model))


def num_decoder_blocks(model: nn.Module) -> int:
    """Blocks of an l-DAE's decoder."""
    return len(getattr(decoder_of(model), 'layers', ()))


def resolve_blocks(depth: int, blocks: Sequence[int] | None, further: int = 0) -> list[int]:
    """Positive numbers of an encoder's blocks, of which None is the last; ``further`` ones are its decoder's. Raises ConfigError
    for a number out of range, none, or one given twice."""
    blocks = [depth] if blocks is None else list(blocks)
    for block in blocks:
        if isinstance(block, bool) or not isinstance(block, int) or not block or not -depth <= block <= depth + further:
            more = f', and the decoder {depth + 1} to {depth + further}' if further else ''
            raise ConfigError(
                f'blocks: {block!r} is not one: the encoder has blocks 1 to {depth}, or -1 to -{depth}{more}'
            )
    resolved = [block if block > 0 else depth + 1 + block for block in blocks]
    if not resolved or len(set(resolved)) < len(resolved):
        raise ConfigError(f'blocks={blocks} must name at least one block, and none twice')
    return resolved


def encoder_parts(backbone: nn.Module) -> list[nn.Module]:
    """Blocks or stages, by the names that mmpretrain and timm give them."""
    for name in ('layers', 'blocks', 'stages'):
        parts = getattr(backbone, name, None)
        if isinstance(parts, nn.ModuleList | nn.Sequential):
            return list(parts)
    names = getattr(backbone, 'res_layers', None) or [
        part['module'] for part in getattr(backbone, 'feature_info', None) or ()
    ]
    return [backbone.get_submodule(name) for name in names]


@contextmanager
def _watched(parts: Mapping[int, nn.Module], take: Callable) -> Iterator[dict[int, list[Tensor]]]:
    """Outputs of blocks, as ``take`` makes them, while the context is open, by their number."""
    found: dict[int, list[Tensor]] = {}

    def watch(block: int) -> Callable:
        return lambda module, inputs, output: found.__setitem__(block, take(block, output))

    with ExitStack() as handles:
        for block, part in parts.items():
            handles.enter_context(part.register_forward_hook(watch(block)))
        yield found


def _pool(output: Tensor | Sequence, backbone: nn.Module, pooling: str = 'mean') -> Tensor:
    """Tokens (B, N, C), maps (B, C, H, W) or rows (B, C), or the last of several -> (B, C)."""
    if pooling == 'own':
        return backbone.forward_head(output, pre_logits=True)
    output = _last(output)
    if pooling == 'cls':
        return output[:, 0]
    if output.dim() == 4:
        return output.mean(dim=(1, 2) if _is_channels_last(backbone) else (2, 3))
    if output.dim() == 3:
        return output[:, num_extra_tokens(backbone) :].mean(dim=1)
    return output


def _tokens(output: Tensor | Sequence, backbone: nn.Module) -> Tensor:
    """The same, but patch tokens, or the cells of maps: (B, N, C)."""
    output = _last(output)
    if output.dim() == 4:
        return output.flatten(1, 2) if _is_channels_last(backbone) else output.flatten(2).transpose(1, 2)
    if output.dim() == 2:
        raise ConfigError(f'{type(backbone).__name__} gives one vector an image: it has no patch tokens')
    return output[:, num_extra_tokens(backbone) :]


def _last(output: Tensor | Sequence) -> Tensor:
    # Stages that give (tokens, grid) have their size last.
    return output if isinstance(output, Tensor) else [part for part in output if isinstance(part, Tensor)][-1]


def _is_channels_last(backbone: nn.Module) -> bool:
    return getattr(backbone, 'output_fmt', 'NCHW') == 'NHWC'


def _raw(backbone: nn.Module, is_whole: bool = False) -> AbstractContextManager:
    """The encoder gives all tokens where it would pick the class token, or ``is_whole`` and it would average them."""
    own = getattr(backbone, 'out_type', None)
    is_one = own == 'cls_token' or (is_whole and own in ('avg_featmap', 'featmap'))
    return changed(backbone, out_type='raw') if is_one else nullcontext()


def _forward_unmasked(model: nn.Module, backbone: nn.Module, images: Tensor) -> Tensor | tuple[Tensor, ...]:
    """The encoder's output."""
    with _raw(backbone):
        if isinstance(unwrapped(model), BaseSelfSupervisor):
            return unwrapped(model).extract_feat(images)
        if isinstance(backbone, MAEViT):
            return backbone(images, mask=None)  # mask=False masks as well
        # timm's forward ends in a classifier; mmpretrain's backbones have no such method.
        return getattr(backbone, 'forward_features', backbone)(images)


def num_registers(backbone: nn.Module) -> int:
    """Of the tokens in front of the patches' inside an encoder, those that its output lacks."""
    return getattr(backbone, 'reg_tokens', 0)


def num_extra_tokens(backbone: nn.Module) -> int:
    return getattr(backbone, 'num_extra_tokens', getattr(backbone, 'num_prefix_tokens', 0))


@torch.no_grad()
def extract_features(
    encode: Callable[[Tensor], Tensor],
    dataloader: DataLoader,
    data_preprocessor: Callable[[dict], dict] | None = None,
    desc: str = 'features',
) -> tuple[Tensor, Tensor]:
    """Encode a labelled data set in one pass, holding nothing but the result and one batch.

    In a distributed run each rank encodes the shard its sampler gives it, and all ranks get all rows, in the order of
    the data set (for a sampler that doesn't shuffle). Raises ConfigError if the data has no labels.

    Args:
        encode: Images (B, C, H, W), preprocessed, to features (B, C), such as :func:`pooled_features` of a model, or to
            tokens (B, N, C), as :func:`block_tokens`.
        dataloader: Batches as ``dict(inputs=..., data_samples=[...])``, samples with ``gt_label``.
        data_preprocessor: The model's; without it the batch's inputs go to ``encode`` as they are.
        desc: What the progress bar says. The bar is shown on a terminal only.

    Returns:
        Features (n, C) or (n, N, C) float32 and labels (n,) int64, on the CPU.
    """
    shard, labels, filled = None, None, 0
    for batch in tqdm(dataloader, desc=desc, leave=False, disable=None if is_main_process() else True):
        batch = batch if data_preprocessor is None else data_preprocessor(batch)
        rows = encode(batch['inputs']).float()
        if shard is None:
            shard = torch.empty(len(dataloader.sampler), *rows.shape[1:])
            labels = torch.empty(len(shard), dtype=torch.int64)
        shard[filled : filled + len(rows)] = rows.cpu()
        labels[filled : filled + len(rows)] = labels_of(batch)
        filled += len(rows)
    return _gather(shard[:filled], dataloader), _gather(labels[:filled], dataloader)


def labels_of(batch: dict) -> Tensor:
    """Labels (B,) of a batch, on the CPU."""
    samples = batch.get('data_samples') or [None]
    if any('gt_label' not in (sample or ()) for sample in samples):
        raise ConfigError(
            'features: the data has no labels to score against: set with_label=True in its dataset config'
        )
    return torch.cat([sample.gt_label.view(-1) for sample in samples]).cpu()


def _gather(shard: Tensor, dataloader: DataLoader) -> Tensor:
    """Rows of all ranks, interleaved as the sampler dealt them out, without those it added to fill up."""
    num_shards = getattr(dataloader.sampler, 'world_size', 1)
    if num_shards == 1:
        return shard
    num_images = len(dataloader.dataset)
    longest = -(-num_images // num_shards)
    padded = shard.new_zeros(longest, *shard.shape[1:])
    padded[: len(shard)] = shard
    return torch.stack(all_gather(padded), dim=1).flatten(0, 1)[:num_images]
