"""What training does not show by itself: gradients task against task, imagination against data.

Ray-free; `algorithm.callbacks` logs it during a run. Shapes: B batch, T tasks, K unroll steps,
n TD steps, H latent dim, V value heads, D and A padded observation and action dims.
"""
