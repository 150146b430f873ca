"""From label volumes to a cohort folder. numpy, scipy and nibabel only: never imports torch."""
