"""The networks of the StyleGAN families and what they are made of, for inference."""
