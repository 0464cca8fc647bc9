"""Runs the job refine in a process of its own and kills everything it started at one named point of step 3.

    python doomed_refine.py LAKE OUT START POINT SETTING...

SIGKILL to the whole process group. Nothing in the product knows of this; the points are the product's own functions.
"""

import os
import signal
import sys

STEP = 3


def die() -> None:
    os.killpg(0, signal.SIGKILL)


def main() -> None:
    # Not above: decoders import this file, too, and have no room for torch.
    from transformers import PreTrainedModel

    from jobs.runtime import cli
    from jobs.steps.rounds import Rounds
    from lake.models import Models
    from models.training import trainer
    from models.training.refinement import Refinement

    root, out, start, point, *settings = sys.argv[1:]
    os.setpgid(0, 0)
    if point == "drawing":  # the rollouts are made and not yet kept
        publish = Rounds.publish

        def before(self, step, drawn):
            die() if step == STEP else publish(self, step, drawn)

        Rounds.publish = before
    elif point == "learning":  # they are kept, nothing was learned from them
        batches = Refinement.batches

        def behind(self, step):
            made = batches(self, step)
            return die() if step == STEP else made

        Refinement.batches = behind
    elif point == "exporting":  # the model is written in part
        save = PreTrainedModel.save_pretrained

        def halfway(self, *arguments, **named):
            save(self, *arguments, **named)
            die()

        PreTrainedModel.save_pretrained = halfway
    elif point == "registering":  # its figures are kept, the model is not
        Models.save = lambda *arguments: die()
    elif point == "naming":  # the model is registered and has no name yet
        Models._name = lambda *arguments: die()
    else:  # "saving": a checkpoint is written and not yet marked as whole
        touch = trainer.Path.touch

        def marking(self, *arguments, **named):
            if "step-00000004" in str(self):
                die()
            touch(self, *arguments, **named)

        trainer.Path.touch = marking
    words = [word for setting in (f"lake.root={root}", *settings) for word in ("--set", setting)]
    sys.exit(cli.main(["refine", "--conf", "conf/local.yaml", "--quiet", "--start", start, "--out", out, *words]))


if __name__ == "__main__":
    main()
