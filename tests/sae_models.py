"""Small random sparse autoencoders over a model's vectors, and a plain computation of what they make. Not a test."""

import json

import numpy as np
from safetensors.numpy import load_file, save_file

from lexmax import load_encoder
from lexmax.retrieval.encoders.checkpoints.sae import BaseFiles, SaeLayout, write_sae_config

N_LATENTS, N_ACTIVE = 24, 3


def write_sae(folder, base, kind, **settings):
    """A checkpoint over the model folder ``base``; ``settings`` are fields of `SaeLayout`."""
    encoder = load_encoder(kind, model=str(base), dtype="float32")
    rng, shape = np.random.default_rng(5), (N_LATENTS, encoder.dim)
    tensors = {
        "encoder": rng.standard_normal(shape),
        "decoder": rng.standard_normal(shape),
        "encoder_bias": 0.3 * rng.standard_normal(N_LATENTS),
        "decoder_bias": 0.1 * rng.standard_normal(encoder.dim),
        "mean": 0.1 * rng.standard_normal(encoder.dim),
        "idf": rng.uniform(0.5, 3, N_LATENTS),
    }
    folder.mkdir()
    save_file({name: tensor.astype(np.float32) for name, tensor in tensors.items()}, folder / "model.safetensors")
    files = BaseFiles(kind=kind, model=str(base), fingerprint=encoder.fingerprint)
    sizes = {"dim": encoder.dim, "n_latents": N_LATENTS, "n_active": N_ACTIVE, "scale": 1.7}
    write_sae_config(SaeLayout(folder=folder, base=files, **sizes | settings))
    latents = [{"label": "" if n == 7 else f"word{n}", "tokens": [f"word{n}"], "texts": []} for n in range(N_LATENTS)]
    (folder / "latents.json").write_text(json.dumps(latents))
    return folder


def weights_of(folder, vectors, *, query):
    """latent -> weight of a text with these vectors (n, dim), from the files, in float64."""
    config, stored = json.loads((folder / "config.json").read_text()), load_file(folder / "model.safetensors")
    tensors = {name: tensor.astype(np.float64) for name, tensor in stored.items()}
    pooled = np.zeros(config["n_latents"])
    for vector in vectors.astype(np.float64):
        inputs = config["scale"] * (vector - tensors["mean"])
        products = tensors["encoder"] @ (inputs - tensors["decoder_bias"]) + tensors["encoder_bias"]
        for latent in sorted(range(len(products)), key=lambda at: -products[at])[: config["n_active"]]:
            if products[latent] > 0:
                both = (pooled[latent], products[latent])
                pooled[latent] = sum(both) if config["query_pooling" if query else "document_pooling"] == "sum" else max(both)
    found = config["gain"] * pooled
    if config["weighting"] == "log1p":
        found = np.log(1 + found) * (tensors["idf"] if query else 1)
    elif not query:
        found = found.round()
    return {latent: found[latent] for latent in np.flatnonzero(found).tolist()}
