"""Which figures are older than the code that they measure.

For each file of `benchmarks/results`: commits since the one that it names which changed its script
or what that measures. What they changed may not matter to the figures: look before running anew.
"""

import subprocess
from pathlib import Path

from foldnorm.preprocessing.core.counts import counted
from foldnorm.preprocessing.core.files import read_json

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results"
# By file: its script, and what that measures.
MEASURED = {
    "ablation.json": ("benchmarks/ablation.py", "benchmarks/ablation_networks.py",
                      "models/wgan_gp.py", "models/encoder_gan.py", "models/vnet.py"),
    "alignment.json": ("benchmarks/alignment.py", "preprocessing/skeletons",
                       "preprocessing/spatial"),
    "anomaly_real.json": ("benchmarks/anomaly_real.py", "pipeline/scoring", "models/restorer.py",
                          "preprocessing/alteration", "preprocessing/skeletons"),
    "augmentation.json": ("benchmarks/augmentation.py", "pipeline/data/sheet_affine.py",
                          "preprocessing/spatial", "preprocessing/topology/thinning.py"),
    "deleted_folds.json": ("benchmarks/anomaly.py", "pipeline/scoring", "models/restorer.py",
                           "preprocessing/alteration", "preprocessing/phantom"),
    "deleted_folds_2mm.json": ("benchmarks/anomaly.py", "pipeline/scoring", "models/wgan_gp.py",
                               "preprocessing/alteration", "preprocessing/phantom"),
    "demo.json": ("benchmarks/demo.py", "pipeline/commands/demo.py", "models", "pipeline/scoring"),
    "device_simulation.json": ("benchmarks/device_simulation.py", "pipeline/training", "models"),
    "digits.json": ("benchmarks/families.py", "models/image_classifier.py",
                    "configs/cnn_classifier.yaml", "pipeline/data/augmentation.py"),
    "drawn_training.json": ("benchmarks/drawn_training.py", "benchmarks/generation.py",
                            "models/vqvae_transformer.py", "models/restorer.py",
                            "pipeline/inference/synthetic_cohort.py"),
    "drawn_training_gan.json": ("benchmarks/drawn_training.py", "benchmarks/gan_prior.py",
                                "models/wgan_gp.py", "models/latent_flow.py"),
    "gan_prior_phantoms.json": ("benchmarks/gan_prior.py", "models/wgan_gp.py",
                                "models/latent_flow.py", "preprocessing/phantom"),
    "gan_prior.json": ("benchmarks/gan_prior.py", "models/wgan_gp.py", "models/encoder_gan.py",
                       "models/latent_stage.py", "models/rectified_flow.py",
                       "preprocessing/topology/mending.py"),
    "generation.json": ("benchmarks/generation.py", "models/vqvae.py", "models/codebooks.py",
                        "models/block_networks.py", "models/vqvae_transformer.py",
                        "models/code_transformer.py", "models/causal_transformer.py",
                        "pipeline/scoring/shortfall.py",
                        "preprocessing/topology/mending.py"),
    "generation_flow.json": ("benchmarks/generation.py", "models/distance_autoencoder.py",
                             "models/latent_stage.py", "models/rectified_flow.py",
                             "models/diffusion.py",
                             "preprocessing/topology/mending.py"),
    "generation_hemispheres.json": ("benchmarks/generation.py", "models/vqvae_transformer.py",
                                    "models/code_transformer.py", "models/grids.py",
                                    "preprocessing/topology/mending.py"),
    "gpu_h100.json": ("benchmarks/gpu.py", "pipeline/training", "models"),
    "hippocampi.json": ("benchmarks/hippocampi.py", "pipeline/scoring", "models/wgan_gp.py",
                        "models/restorer.py", "models/hypersphere_classifier.py",
                        "configs/wgan_gp.yaml", "configs/restorer.yaml",
                        "configs/hypersphere_classifier.yaml"),
    "latent.json": ("benchmarks/latent.py", "pipeline/latent", "pipeline/report", "pipeline/view"),
    "learned_names.json": ("benchmarks/learned_names.py", "preprocessing/naming",
                           "pipeline/training/learn_names.py", "models/fold_namer.py"),
    "learning_curve.json": ("benchmarks/anomaly_real.py", "pipeline/scoring", "models/restorer.py"),
    "loader.json": ("benchmarks/loader.py", "pipeline/data"),
    "missing_sulci.json": ("benchmarks/missing_sulci.py", "pipeline/scoring",
                           "preprocessing/naming"),
    "missing_sulci_1mm.json": ("benchmarks/missing_sulci.py", "pipeline/scoring",
                               "preprocessing/naming"),
    "names.json": ("benchmarks/names.py", "preprocessing/naming", "pipeline/inference"),
    "networks.json": ("benchmarks/networks.py", "models"),
    "orientation.json": ("benchmarks/orientation.py", "preprocessing/naming",
                         "pipeline/inference/atlas_orientation.py"),
    "phantom.json": ("benchmarks/phantom.py", "preprocessing/phantom", "preprocessing/skeletons"),
    "population.json": ("benchmarks/population.py", "preprocessing/cohort",
                        "preprocessing/core/arrays.py", "preprocessing/core/files.py"),
    "preprocessing.json": ("benchmarks/preprocessing.py", "preprocessing/cohort",
                           "preprocessing/io", "preprocessing/spatial"),
    "processes.json": ("benchmarks/processes.py", "pipeline/training/distributed.py",
                       "pipeline/training/messages.py"),
    "real_cohort.json": ("benchmarks/real_cohort.py", "preprocessing/cohort",
                         "preprocessing/skeletons"),
    "region_sizes.json": ("benchmarks/anomaly_real.py", "pipeline/scoring"),
    "slices.json": ("benchmarks/families.py", "models/diffusion.py", "models/rectified_flow.py",
                    "models/ddpm.py", "models/damage_unet.py", "pipeline/inference/restore.py"),
    "storage.json": ("benchmarks/storage.py", "preprocessing/core/arrays.py"),
    "widths.json": ("benchmarks/widths.py", "models", "configs/vnet.yaml", "configs/wgan_gp.yaml"),
    "scoring_speed.json": ("benchmarks/scoring_speed.py", "pipeline/scoring"),
    "skeletonise.json": ("benchmarks/skeletonise.py", "preprocessing/skeletons",
                         "preprocessing/topology"),
    "threads.json": ("benchmarks/threads.py", "foldnorm/environment.py"),
    "training.json": ("benchmarks/training.py", "benchmarks/study_network.py", "models/wgan_gp.py",
                      "configs/wgan_gp.yaml"),
    "voxel_names.json": ("benchmarks/voxel_names.py", "models/sulcus_segmenter.py",
                         "preprocessing/naming"),
    "wgan_gp_real.json": ("benchmarks/anomaly_real.py", "pipeline/scoring", "models/wgan_gp.py"),
}  # fmt: skip


def newer(name: str) -> list[str] | None:
    """List the commits since a file's own that touch what it measures; None: no such commit."""
    commit = str(read_json(RESULTS / name)["commit"]).removesuffix("-dirty")
    done = subprocess.run(
        ["git", "log", "--oneline", f"{commit}..HEAD", "--", *MEASURED[name]],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return None if done.returncode else done.stdout.splitlines()


def main() -> None:
    for path in sorted(RESULTS.glob("*.json")):
        commits = newer(path.name)
        if commits is None:
            print(f"{path.name}: made at a commit that is not in this history")
        elif commits:
            print(f"{path.name}: {counted(len(commits), 'commit')} since, the last {commits[0]}")
        else:
            print(f"{path.name}: up to date")


if __name__ == "__main__":
    main()
