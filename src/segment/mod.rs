//! Numerics of segmentation, pure: matrices in, labels and figures out.
