# SPDX-License-Identifier: Apache-2.0
"""From a folder of photographs to an exported encoder, by the documented commands alone, as a newcomer would go.

Makes the photographs, runs each command in a process of its own from a folder that isn't the clone, looks at what it leaves,
and prints two tables: what each step said, and what it took. Ends in status 1 where a step fails, or where a linear
layer on the trained encoder isn't above one on its untrained twin.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from photographs import make

#: What other libraries do with an export: nothing of ldae in it.
LOADERS = {
    'timm': """
import timm, torch
model = timm.create_model('local-dir:timm', pretrained=True).eval()
print('features', tuple(model(torch.rand(2, 3, *model.pretrained_cfg['input_size'][1:])).shape))
""",
    'hf': """
import torch, transformers
model = transformers.AutoModel.from_pretrained('hf').eval()
size = model.config.pretrained_cfg['input_size'][-1]
print('features', tuple(model(torch.rand(2, 3, size, size)).pooler_output.shape))
""",
    'onnx': """
import numpy, onnxruntime
session = onnxruntime.InferenceSession('encoder.onnx', providers=['CPUExecutionProvider'])
given = session.get_inputs()[0]
size = [2 if isinstance(n, str) else n for n in given.shape]
print('features', session.run(None, {given.name: numpy.random.rand(*size).astype('float32')})[0].shape)
""",
}


#: Exit status after Ctrl-C.
INTERRUPTED = 130


@dataclass
class Step:
    name: str
    said: str
    seconds: float


@dataclass
class Journey:
    """Steps taken so far in a folder, with the tools of an environment."""

    folder: Path
    bin: Path
    steps: list[Step] = field(default_factory=list)

    def run(self, name: str, command: str, says: str, status: int = 0, interrupt_at: str | None = None) -> list[str]:
        """One command of the environment: its lines.

        Args:
            says: Pattern of the line that goes into the table; without such a line the step has failed.
            status: With which it must end.
            interrupt_at: Pattern of a line upon which Ctrl-C is pressed, once.
        """
        print(f'\n$ {command}', flush=True)
        begin, lines = time.perf_counter(), []
        process = self._start(command.split())
        for line in process.stdout:
            print(line, end='', flush=True)
            lines.append(line.rstrip())
            if interrupt_at and re.search(interrupt_at, line):
                process.send_signal(signal.SIGINT)
                interrupt_at = None
        said = [line for line in lines if re.search(says, line)]
        if process.wait() != status or not said:
            raise SystemExit(f'{name}: ended with {process.returncode} (not {status}), or never said {says!r}')
        self.steps.append(Step(name, said[-1], time.perf_counter() - begin))
        return lines

    def python(self, name: str, program: str) -> None:
        """A program of some lines, in the environment's Python."""
        path = self.folder / f'{name.replace(" ", "_")}.py'
        path.write_text(program)
        self.run(name, f'python {path.name}', says='features')

    def here(self, pattern: str) -> Path:
        """The newest file of that pattern, which a step must have left."""
        found = sorted(self.folder.glob(pattern), key=lambda path: path.stat().st_mtime_ns)
        if not found:
            raise SystemExit(f'{self.steps[-1].name} left no {pattern} in {self.folder}')
        return found[-1].relative_to(self.folder)

    def _start(self, command: list[str]) -> subprocess.Popen:
        options = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True)
        environment = {**os.environ, 'PYTHONUNBUFFERED': '1'}
        return subprocess.Popen([self.bin / command[0], *command[1:]], cwd=self.folder, env=environment, **options)

    def tables(self) -> str:
        """What each step said, and what it took."""
        said = ['| step | it said |', '|---|---|', *(f'| {s.name} | {s.said.replace("|", "/")} |' for s in self.steps)]
        took = ['| step | seconds |', '|---|---|', *(f'| {s.name} | {s.seconds:.0f} |' for s in self.steps)]
        total = sum(step.seconds for step in self.steps)
        return '\n'.join([*said, '', *took, f'| all | {total:.0f} |'])


def main() -> None:
    args = parse_args()
    folder = args.out.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    journey = Journey(folder, args.bin.absolute())
    count = make(folder / 'photographs', *((12, 4) if args.quick else (60, 16)))
    print(f'{count} photographs in {folder / "photographs"}')
    checkpoint = pretrain(journey, args.budget, args.seed)
    look(journey, checkpoint)
    scores = score(journey, checkpoint, args)
    take_away(journey, checkpoint)
    text = journey.tables()
    (folder / 'journey.md').write_text(text + '\n')
    print(f'\n{text}\n')
    trained, untrained = (scores[name]['linear']['mean'] for name in ('ldae', 'ldae_untrained'))
    if not args.quick and trained <= untrained:
        raise SystemExit(
            f'a linear layer on the trained encoder, {trained}%, is not above its untrained twin, {untrained}%'
        )


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, required=True, help='folder to work in')
    parser.add_argument('--bin', type=Path, default=Path(sys.executable).parent, help='where `ldae` and `python` are')
    parser.add_argument('--budget', default='3m', help='for training (3m)')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--quick', action='store_true', help='a few photographs and epochs, to see that each step runs')
    return parser.parse_args()


def pretrain(journey: Journey, budget: str, seed: int) -> Path:
    """Train, interrupt, and go on to the end."""
    command = f'ldae train vit-b_pca --data-root photographs --scale auto --budget {budget} --cfg-options randomness.seed={seed}'
    journey.run('verify', 'ldae verify-dataset photographs', says='can be read')
    journey.run('train', command, says='--resume', status=INTERRUPTED, interrupt_at=r'Epoch\(train\)')
    journey.run('resume', f'{command} --resume', says=r'Saving checkpoint|Done|epoch', status=0)
    return journey.here('work_dirs/photographs/epoch_*.pth')


def look(journey: Journey, checkpoint: Path) -> None:
    """What it does to images."""
    config = checkpoint.parent / 'vit-b_pca.py'
    journey.run('test', f'ldae test {config} {checkpoint}', says='psnr')
    journey.run('denoise', f'ldae denoise {checkpoint} photographs/val --out denoised.png', says='denoised.png')
    journey.here('denoised.png')


def score(journey: Journey, checkpoint: Path, args: argparse.Namespace) -> dict:
    """Its features, beside those of its untrained twin, of an MAE and of the pixels; then the benchmarks."""
    quick = ' --epochs 2' if args.quick else ''
    journey.run('probe', f'ldae probe {checkpoint}', says='chosen')
    compare = f'ldae compare --ldae-checkpoints {checkpoint} --seeds {args.seed}'
    journey.run('compare', compare, says='l-DAE encoder, pre-trained')
    for kind in ('knn', 'linear', 'finetune'):
        options = quick if kind != 'knn' else ''
        journey.run(f'benchmark {kind}', f'ldae benchmark {kind} {checkpoint}{options}', says='top-1')
    return json.loads((journey.folder / journey.here('work_dirs/compare/comparison.json')).read_text())['encoders']


def take_away(journey: Journey, checkpoint: Path) -> None:
    """Exports, each loaded by its library alone."""
    for to, out in dict(timm='timm', hf='hf', onnx='encoder.onnx').items():
        journey.run(f'export {to}', f'ldae export {checkpoint} --to {to} --out {out}', says=out)
        journey.python(f'load {to}', LOADERS[to])


if __name__ == '__main__':
    main()
