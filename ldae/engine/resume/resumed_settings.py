# SPDX-License-Identifier: Apache-2.0
"""Settings that a checkpoint and a config both have, at the resumption of a run: which of them count, and where they differ."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.optim.scheduler.param_scheduler import INF, _ParamScheduler
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, Runner
from torch import nn
from torch.nn import Parameter
from torch.optim import Optimizer

from ldae.engine.hook import LDAEHook
from ldae.registry import HOOKS
from ldae.utils import ConfigError
from ldae.utils.models import unwrapped

from .check_optimizer import HOW, check_moments, check_options, check_schedules
from .loops import STEP, ResumableEpochLoop

#: Of a schedule's state, what moves on with it.
MOVING = {'base_values', 'last_step', 'verbose', 'best', 'num_bad_epochs', 'cooldown_counter'}
LENGTH = {'train_cfg.max_epochs': 'max_epochs', 'train_cfg.max_iters': 'max_iters', 'training images': 'images'}


@HOOKS.register_module()
class ResumedSettingsHook(LDAEHook):
    """Say, a line each, where a resumed run goes on with other settings than its config's.

    mmengine takes lr, optimizer options and schedules out of the checkpoint, whatever the config has become, and prints
    the config's. A checkpoint whose schedules are missing, or of other kinds or number than the config's, can't be
    followed in this: then the config is. Raises ConfigError if the checkpoint is of another optimizer, or has done more
    than the config asks for.

    Args:
        new_schedule: Take lr, optimizer options and schedules from the config, with the values that an uninterrupted run of
            it has at this place of the training; weights, the optimizer's moments, counters and order of the data are the
            checkpoint's all the same.
    """

    # After the loop has gone to its place, and EMAHook has taken what is its own.
    priority = 'LOWEST'

    def __init__(self, new_schedule: bool = False) -> None:
        self.new_schedule = new_schedule

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add what else such a comparison needs."""
        if not isinstance(runner._train_loop, BaseLoop):
            return
        optimizers = {
            part: dict(type=type(wrapper.optimizer).__name__, names=_names_in(wrapper.optimizer, runner.model))
            for part, wrapper in _by_part(runner.optim_wrapper).items()
        }
        checkpoint['settings'] = dict(_length(runner.train_loop), optimizers=optimizers)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if not runner._resume or not isinstance(runner._train_loop, BaseLoop):
            return
        before, loop = checkpoint.get('settings') or {}, runner.train_loop
        _check_is_to_do(loop, checkpoint)
        lines = [*_changed_length(before, loop), *_without_average(runner, checkpoint)]
        parts = list(_parts(runner, checkpoint, before.get('optimizers') or {}))
        follow = self.new_schedule or not all(part.can_be_followed for part in parts)
        for part in parts:
            if not follow:
                part.check()
            lines += part.differences(follow)
        if follow:
            steps = place_of(loop, checkpoint)
            for part in parts:
                replay(part.schedulers, steps, checkpoint['meta']['epoch'], len(loop.dataloader))
            lines += _take_from_config(checkpoint, parts)
        elif lines:
            lines += [*_short_schedule(parts, loop, checkpoint), 'with --new-schedule, the config goes first']
        for line in lines:
            runner.logger.warning(f'Resumed: {line}')


class Part(NamedTuple):
    """One optimizer with its schedules, and what a checkpoint holds of them."""

    name: str
    wrapper: OptimWrapper
    schedulers: list[_ParamScheduler]
    saved: dict | None  # of the optimizer
    saved_schedules: list[dict]
    kind: str | None  # of the saved optimizer
    saved_names: list[str] | None
    names: list[str]

    @property
    def can_be_followed(self) -> bool:
        """Whether schedules of the config can go on with the states in the checkpoint."""
        mine = [set(scheduler.state_dict()) for scheduler in self.schedulers]
        return self.saved is not None and mine == [set(state) for state in self.saved_schedules]

    @property
    def same_optimizer(self) -> bool:
        """Whether the checkpoint's is of the same type; if it doesn't say, whether it has all of its options."""
        if self.kind is not None:
            return self.kind == type(self.wrapper.optimizer).__name__
        options = set(self.wrapper.optimizer.defaults) - HOW
        return all(options <= set(group) for group in self.saved['param_groups'])

    @property
    def same_groups(self) -> bool:
        """Whether the same parameters have options of their own."""
        sizes = [[len(group['params']) for group in groups] for groups in (self.groups, self.saved['param_groups'])]
        return sizes[0] == sizes[1] and self.saved_names in (None, self.names)

    @property
    def groups(self) -> list[dict]:
        """The optimizer's."""
        return self.wrapper.optimizer.param_groups

    @property
    def params(self) -> list[Parameter]:
        """Of all groups, by their numbers in the optimizer's state."""
        return [param for group in self.groups for param in group['params']]

    def check(self) -> None:
        """Raise ConfigError unless the optimizer can take the checkpoint's state as it is."""
        if not self.same_optimizer:
            was = self.kind or f'one with the options {", ".join(sorted(set(self.saved["param_groups"][0]) - HOW))}'
            raise ConfigError(
                f"the checkpoint's optimizer is not the config's {type(self.wrapper.optimizer).__name__}, but {was}: resume "
                'with that, or with --new-schedule, by which the moments begin anew'
            )
        if not self.same_groups:
            raise ConfigError(
                "the checkpoint's optimizer has other groups of parameters than the config's (paramwise_cfg, weight decay, "
                'frozen layers): resume with the former settings, or with --new-schedule'
            )
        check_options(self.wrapper.optimizer, self.saved['param_groups'])
        check_moments(self.params, self.saved['state'], self.saved['param_groups'])
        own = [scheduler.state_dict() for scheduler in self.schedulers]
        check_schedules(self.wrapper.optimizer, own, self.saved_schedules)

    def moments(self) -> dict[int, dict] | None:
        """The optimizer's state by today's numbers of its parameters; None where it can't be taken over."""
        if not self.same_optimizer:
            return None
        if self.same_groups:
            return self.saved['state']
        if self.saved_names is None:
            return None
        by_name = {self.saved_names[number]: state for number, state in self.saved['state'].items()}
        return {number: by_name[name] for number, name in enumerate(self.names) if name in by_name}

    def differences(self, follow: bool) -> list[str]:
        """A line for each option and schedule that differs: what is used, and what isn't."""
        where = f'{self.name}.' if self.name else ''
        names = ('config', 'checkpoint') if follow else ('checkpoint', 'config')
        if self.saved is None:
            return [f'{where}optimizer: the checkpoint has no state of it: its moments begin anew']
        moves = 'betas' in self.groups[0] or self.groups[0].get('momentum')
        pairs = [] if not self.same_optimizer else _option_differences(self.groups, self.saved['param_groups'])
        schedules, lines = [scheduler.state_dict() for scheduler in self.schedulers], []
        if self.can_be_followed:
            pairs += _schedule_differences(schedules, self.saved_schedules)
        else:
            counts = f"the {len(schedules)} of the config, since the checkpoint's {len(self.saved_schedules)}"
            lines = [f'{where}param_scheduler: {counts} are of another number or of other kinds']
        if moves and not self.saved['state']:
            lines.append(f'{where}optimizer: the checkpoint has no moments of it: they begin anew')
        return lines + [
            f'{where}{what}: {(its, mine)[follow]} of the {names[0]}, not {(mine, its)[follow]} of the {names[1]}'
            for what, mine, its in pairs
        ]


def _parts(runner: Runner, checkpoint: dict, notes: Mapping) -> Iterator[Part]:
    schedulers, saved = runner.param_schedulers or [], checkpoint.get('optimizer')
    schedules = checkpoint.get('param_schedulers') or []
    for name, wrapper in _by_part(runner.optim_wrapper).items():
        note = notes.get(name) or {}
        yield Part(
            name,
            wrapper,
            schedulers.get(name, []) if isinstance(schedulers, dict) else schedulers,
            saved.get(name) if name and saved is not None else saved,
            schedules.get(name, []) if isinstance(schedules, dict) else schedules,
            note.get('type'),
            note.get('names'),
            _names_in(wrapper.optimizer, runner.model),
        )


def _by_part(wrapper: OptimWrapper | OptimWrapperDict) -> dict[str, OptimWrapper]:
    return dict(wrapper.items()) if isinstance(wrapper, OptimWrapperDict) else {'': wrapper}


def _names_in(optimizer: Optimizer, model: nn.Module) -> list[str]:
    """Names of a model's parameters by the numbers that the optimizer's state has."""
    names = {param: name for name, param in unwrapped(model).named_parameters()}
    return [names.get(param, '') for group in optimizer.param_groups for param in group['params']]


def _length(loop: BaseLoop) -> dict[str, int]:
    length = dict(max_iters=loop.max_iters, images=len(loop.dataloader.dataset))
    return dict(length, max_epochs=loop.max_epochs) if isinstance(loop, EpochBasedTrainLoop) else length


def _check_is_to_do(loop: BaseLoop, checkpoint: Mapping) -> None:
    unit = 'epoch' if isinstance(loop, EpochBasedTrainLoop) else 'iter'
    done, asked = checkpoint['meta'][unit], getattr(loop, f'max_{unit}s')
    if done > asked:
        raise ConfigError(
            f'the checkpoint has done {done} {unit}s, and train_cfg.max_{unit}s is {asked}: raise it to go on, or take '
            'another --work-dir to start anew'
        )
    progress = checkpoint.get('progress')
    if isinstance(loop, ResumableEpochLoop) and progress:
        begun = progress['data']['epoch'] + (progress['moment'] != STEP)
        if begun != done:
            raise ConfigError(
                f'the checkpoint says that it has done {done} epochs, and its place in the data {begun}: use the one before it'
            )


def _changed_length(before: Mapping, loop: BaseLoop) -> list[str]:
    now = _length(loop)
    return [
        f'{what}: {now[key]} now, {before[key]} before'
        for what, key in LENGTH.items()
        if key in before
        and now.get(key, before[key]) != before[key]
        and not (key == 'max_iters' and 'max_epochs' in now)
    ]


def _without_average(runner: Runner, checkpoint: dict) -> list[str]:
    """mmengine saves the average in the place of the weights, and only its hook puts them back."""
    if 'ema_state_dict' not in checkpoint or any(hasattr(hook, 'ema_model') for hook in runner.hooks):
        return []
    weights = checkpoint.pop('ema_state_dict')
    own = {key.removeprefix('module.'): value for key, value in weights.items() if key.startswith('module.')}
    if checkpoint.get('ema_in_place', True):
        checkpoint['state_dict'].update(own)
    return ['EMA: the config has no EMAHook: the average of the weights ends here, the weights themselves go on']


def _value(group: Mapping, option: str) -> Any:
    value = group.get(f'initial_{option}', group[option])  # before any schedule
    value = value.item() if hasattr(value, 'item') else value
    return tuple(value) if isinstance(value, list) else value


def _option_differences(groups: list[dict], saved: list[dict]) -> list[tuple[str, str, str]]:
    """Name, value and value in the checkpoint, where they differ in any group."""
    found = []
    for option in groups[0]:
        if option in HOW or option.startswith('initial_') or any(option not in group for group in [*groups, *saved]):
            continue
        values = [list(dict.fromkeys(_value(group, option) for group in part)) for part in (groups, saved)]
        if len(groups) == len(saved):
            pairs = dict.fromkeys((_value(a, option), _value(b, option)) for a, b in zip(groups, saved, strict=True))
            values = [list(dict.fromkeys(side)) for side in zip(*[p for p in pairs if p[0] != p[1]], strict=True)]
        if values and values[0] != values[1]:
            found.append((f'optimizer {option}', *map(_shown, values)))
    return found


def _shown(values: list) -> str:
    shown = [f'{value:.4g}' if isinstance(value, float) else str(value) for value in values[:3]]
    return ' / '.join(shown) + (' ...' if len(values) > 3 else '')


def _schedule_differences(schedules: list[dict], saved: list[dict]) -> list[tuple[str, str, str]]:
    found = []
    for number, pair in enumerate(zip(schedules, saved, strict=True)):
        mine, its = pair
        keys = [key for key in mine if key[0] != '_' and key not in MOVING and mine[key] != its[key]]
        if keys:
            texts = [', '.join(f'{key}={side[key]}' for key in keys) for side in pair]
            unit = 'epochs' if mine['by_epoch'] else 'steps'
            found.append((f'param_scheduler[{number}] in {unit}', *texts))
    return found


def _short_schedule(parts: list[Part], loop: BaseLoop, checkpoint: dict) -> list[str]:
    """A line where the checkpoint's schedules end before the training does, which has become longer."""
    if checkpoint.get('settings', {}).get('max_iters') == loop.max_iters:
        return []
    length, done = len(loop.dataloader), checkpoint['meta']['iter']
    last = done + loop.max_iters - place_of(loop, checkpoint)
    states = [state for part in parts for state in part.saved_schedules]
    ends = [INF if s['end'] >= INF else s['end'] * (length if s['by_epoch'] else 1) for s in states]
    if not ends or max(ends) >= last:
        return []
    return [f'the schedules of the checkpoint end at step {max(ends)} of {last}: from there on lr stays as it is']


def place_of(loop: BaseLoop, checkpoint: dict) -> int:
    """How many steps an uninterrupted run of this config has done at the place where a checkpoint's goes on: of epochs of
    another length, as many."""
    meta = checkpoint['meta']
    if not isinstance(loop, ResumableEpochLoop) or 'progress' not in checkpoint:
        return meta['iter']
    order = loop.order
    return meta['epoch'] * len(order) + (order.first_batch() if order.epoch == meta['epoch'] else 0)


def replay(schedulers: list[_ParamScheduler], steps: int, epochs: int, length: int) -> None:
    """Bring new schedules, and by them their optimizer, to where they are after ``steps`` and ``epochs`` of ``length`` steps.

    One by one, since mmengine's are defined by the value before; half a minute for a million steps of a few groups."""
    by_step = [scheduler for scheduler in schedulers if not scheduler.by_epoch]
    by_epoch = [scheduler for scheduler in schedulers if scheduler.by_epoch]
    for scheduler in schedulers:
        scheduler.optimizer._global_step = 0  # mmengine warns of schedules that are ahead of their optimizer
    for step in range(1, steps + 1):
        for scheduler in by_step:
            scheduler.step()
        if step % length == 0 and step // length <= epochs:
            for scheduler in by_epoch:
                scheduler.step()


def _take_from_config(checkpoint: dict, parts: list[Part]) -> list[str]:
    """Leave in a checkpoint what the config doesn't say: the Runner then keeps its schedules as they are."""
    checkpoint.pop('param_schedulers', None)
    lines, optimizers = [], {}
    for part in parts:
        if part.saved is None:
            continue
        own, moments = part.wrapper.state_dict(), part.moments()
        if moments is not None:
            check_moments(part.params, moments, part.groups)
        else:
            lines.append(f"{part.name} optimizer: the checkpoint's moments don't fit: they begin anew".lstrip())
        settings = {key: own[key] for key in ('param_groups', 'base_param_settings') if key in own}
        optimizers[part.name] = dict(part.saved, **settings, state=moments or {})
    checkpoint.pop('optimizer', None)
    if optimizers:
        checkpoint['optimizer'] = optimizers.get('', optimizers)
    return lines
