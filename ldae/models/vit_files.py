# SPDX-License-Identifier: Apache-2.0
"""ViTs that were saved without a config, recognised by the names and shapes of their tensors: the official files of MAE,
MoCo v3 and DINO, and plain state dicts of timm, torchvision and mmpretrain."""

import re
from collections.abc import Callable, Mapping
from math import isqrt

from torch import Tensor, nn

from ldae.utils import ConfigError
from ldae.utils.checkpoints import compare_keys

# mmpretrain's names and timm's.
INNER = {'.ln': '.norm', '.ffn.layers.0.0.': '.mlp.fc1.', '.ffn.layers.1.': '.mlp.fc2.'}
INNER |= {'.attn.gamma1.weight': '.ls1.gamma', '.ffn.gamma2.weight': '.ls2.gamma'}
OUTER = {'ln1.': 'norm.', 'ln2.': 'fc_norm.', 'patch_embed.projection.': 'patch_embed.proj.', 'pre_norm.': 'norm_pre.'}
TORCHVISION = {
    r'^class_token$': 'cls_token',
    r'^conv_proj\.': 'patch_embed.proj.',
    r'^encoder\.pos_embedding$': 'pos_embed',
    r'^encoder\.ln\.': 'norm.',
    r'^encoder\.layers\.encoder_layer_(\d+)\.': r'blocks.\1.',
    r'\.ln_([12])\.': r'.norm\1.',
    r'\.self_attention\.in_proj_': '.attn.qkv.',
    r'\.self_attention\.out_proj\.': '.attn.proj.',
    r'\.mlp\.(?:0|linear_1)\.': '.mlp.fc1.',
    r'\.mlp\.(?:3|linear_2)\.': '.mlp.fc2.',
}
#: What stands beside an encoder and isn't a part of it.
BESIDE = re.compile(
    r'(?:^|[._])(?!fc_norm)(?:momentum(?:_encoder)?|student|teacher|ema|predictor|projector|decoder|head|heads|neck|fc|classifier|queue|'
    r'pre_logits|mask_token|masked_embed|target_generator|data_preprocessor|loss|prototypes|target_encoder)(?:[._]|$)'
)
LATER = re.compile(r'momentum|student|ema[._]')
#: Heads of the widths that papers don't divide by 64.
HEADS, MOCO_HEADS = {1152: 16, 1280: 16, 1408: 16, 1664: 16}, {384: 12}
KNOWN = (
    "known are ViTs in timm's, torchvision's and mmpretrain's names, among them the files of MAE, MoCo v3, DINO and DINOv2; "
    'another model of timm takes its file as --config timm::NAME FILE'
)


def timm_name(key: str) -> str:
    """timm's name of a parameter of mmpretrain's ViT."""
    for old, new in OUTER.items():
        if key.startswith(old):
            return new + key.removeprefix(old)
    if not key.startswith('layers.'):
        return key
    for old, new in INNER.items():
        key = key.replace(old, new)
    return 'blocks.' + key.removeprefix('layers.')


def _torchvision_name(key: str) -> str:
    for old, new in TORCHVISION.items():
        key = re.sub(old, new, key)
    return key


#: The name of the patch embedding by library, and how its names become timm's.
LAYOUTS: dict[str, tuple[str, Callable[[str], str]]] = {
    'timm': ('patch_embed.proj.weight', str),
    'mmpretrain': ('patch_embed.projection.weight', timm_name),
    'torchvision': ('conv_proj.weight', _torchvision_name),
}


def vit_of_state(
    state: Mapping[str, Tensor], where: object, num_heads: int | None = None, arch: object = None
) -> tuple[nn.Module, str]:
    """timm's ``VisionTransformer`` with the weights of a file, and a line that says what was recognised.

    Raises ConfigError for what isn't such a ViT: each tensor is used, or known to belong to a head, decoder or the like.

    Args:
        state: Of the whole file.
        where: How errors name it.
        num_heads: Which no tensor shows; None: width / 64, MoCo v3's small one as its authors have it.
        arch: The file's own word for its size, if it has one.
    """
    library, prefix = _find_encoder(state, where)
    rename = LAYOUTS[library][1]
    inside = {rename(key.removeprefix(prefix)): value for key, value in state.items() if key.startswith(prefix)}
    beside = [key for key in inside if BESIDE.search(key)]
    beside += [key for key in state if not key.startswith(prefix) and BESIDE.search(key)]
    unknown = [key for key in state if not key.startswith(prefix) and not BESIDE.search(key)]
    part = {key: value for key, value in inside.items() if not BESIDE.search(key)}
    if 'register_tokens' in part:  # DINOv2's stand between class token and patches, without positions
        part = _with_registers(part)
    # MoCo v3's small ViT has twice the heads of others of its width.
    is_moco = arch == 'vit_small' or any('momentum_encoder.' in key for key in beside)
    options = _options(part, where, num_heads, MOCO_HEADS if is_moco else HEADS)
    from timm.models.vision_transformer import VisionTransformer

    vit = VisionTransformer(**options, num_classes=0).eval()
    own = vit.state_dict()
    unknown += [key for key in part if key not in own]
    if unknown:
        raise ConfigError(
            f'{where} holds {len(unknown)} tensors that no known ViT has ({", ".join(unknown[:3])}): {KNOWN}'
        )
    compare_keys(str(where), own, part)
    vit.load_state_dict(part)
    return vit, _about(options, library, prefix, beside)


def _find_encoder(state: Mapping[str, Tensor], where: object) -> tuple[str, str]:
    """The library whose names an encoder has, and what stands before these."""
    found = [
        (key.removesuffix(last), library)
        for library, (last, _) in LAYOUTS.items()
        for key in state
        if key == last or key.endswith('.' + last)
    ]
    if not found:
        shown = ', '.join([*state][:3])
        hint = (
            ''
            if 'embeddings.patch_embeddings.projection.weight' not in ' '.join(state)
            else ("; its layers have transformers' names: name the folder with its config.json, transformers::FOLDER")
        )
        raise ConfigError(
            f'{where} holds no ViT without a config: no patch embedding among {len(state)} tensors ({shown}){hint}; {KNOWN}'
        )
    # The encoder that is trained counts, not its running average; DINO's teacher has its own state dict.
    prefix, library = min(found, key=lambda each: (bool(LATER.search(each[0])), len(each[0])))
    return library, prefix


def _with_registers(part: dict[str, Tensor]) -> dict[str, Tensor]:
    positions = part['pos_embed']
    part = {key: value for key, value in part.items() if key != 'register_tokens'} | dict(
        reg_token=part['register_tokens']
    )
    return part | dict(cls_token=part['cls_token'] + positions[:, :1], pos_embed=positions[:, 1:])


def _options(part: Mapping[str, Tensor], where: object, num_heads: int | None, by_width: Mapping[int, int]) -> dict:
    """Arguments of timm's ``VisionTransformer``, in tensors' shapes."""
    weight, positions = part['patch_embed.proj.weight'], part.get('pos_embed')
    if weight.dim() != 4 or weight.shape[2] != weight.shape[3] or positions is None or positions.dim() != 3:
        shown = f'patch embedding of shape {tuple(weight.shape)}'
        shown += ', no position embedding' if positions is None else f', position embedding of {tuple(positions.shape)}'
        raise ConfigError(f'{where} holds no plain ViT ({shown}): {KNOWN}')
    width, patch, count = weight.shape[0], weight.shape[2], positions.shape[1]
    has_class = 'cls_token' in part
    extra = int(has_class and isqrt(count) ** 2 != count)
    side = isqrt(count - extra)
    if side * side != count - extra:
        raise ConfigError(f'{where} has {count} positions, which are no square of patches: {KNOWN}')
    numbers = {int(match[1]) for key in part if (match := re.match(r'blocks\.(\d{1,4})\.', key))}
    if not numbers or numbers != set(range(len(numbers))):
        raise ConfigError(f'{where} has blocks {sorted(numbers)[:5]}, not 0 to their number: a part of it is missing')
    heads = num_heads or by_width.get(width, max(1, width // 64))
    if width % heads:
        raise ConfigError(f'{where}: {width} channels cannot be shared by {heads} heads: set num_heads')
    hidden = part.get('blocks.0.mlp.fc1.weight', weight).shape[0]
    return dict(
        img_size=side * patch,
        patch_size=patch,
        in_chans=weight.shape[1],
        embed_dim=width,
        depth=len(numbers),
        num_heads=heads,
        mlp_ratio=(hidden + 0.5) / width,  # timm rounds down
        qkv_bias='blocks.0.attn.qkv.bias' in part,
        init_values=1e-5 if 'blocks.0.ls1.gamma' in part else None,
        class_token=has_class,
        no_embed_class=not extra and (has_class or 'reg_token' in part),
        reg_tokens=part['reg_token'].shape[1] if 'reg_token' in part else 0,
        final_norm='norm.weight' in part or 'fc_norm.weight' in part,
        fc_norm='fc_norm.weight' in part,
        global_pool='token' if has_class and 'fc_norm.weight' not in part else 'avg',
    )


def _about(options: dict, library: str, prefix: str, beside: list[str]) -> str:
    size, tokens = options['img_size'], 'a class token' if options['class_token'] else 'no class token'
    if options['reg_tokens']:
        tokens += f', {options["reg_tokens"]} registers'
    under = f' under {prefix}' if prefix else ''
    left_out = sorted({BESIDE.search(key)[0].strip('._') for key in beside})
    left_out = f'; left out: {", ".join(left_out)}' if left_out else ''
    return (
        f'ViT of {options["depth"]} blocks of width {options["embed_dim"]}, {options["num_heads"]} heads, patches of '
        f"{options['patch_size']} in {size} x {size} x {options['in_chans']} pixels, {tokens} ({library}'s names{under}{left_out})"
    )
