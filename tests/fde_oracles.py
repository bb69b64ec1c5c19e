"""Fixed dimensional encodings by their formulas, in plain NumPy: oracles that tests share."""

import numpy as np

RIDGE = 1.0


def bits_of(token, planes):
    return [int(plane @ token > 0) for plane in planes]


def gray(bits):
    """Number of a cell: each bit, xor the last of the number so far, is appended."""
    number = 0
    for bit in bits:
        number = 2 * number + (bit ^ (number & 1))
    return number


def simhash_oracle(encoding, tokens, *, is_query):
    """Sections 2 and 3 of the paper, one token and one cell after the other."""
    config, blocks = encoding.config, []
    for r in range(config.n_repetitions):
        planes = encoding.planes[r * config.n_planes : (r + 1) * config.n_planes]
        inner = config.inner_dim or config.token_dim
        projected = np.zeros((len(tokens), inner))
        for t, token in enumerate(tokens):
            for d, number in enumerate(token):
                projected[t, encoding.targets[r, d]] += number * encoding.signs[r, d]
        bits = [bits_of(token, planes) for token in tokens]
        for cell in range(1 << config.n_planes):
            own = [t for t in range(len(tokens)) if gray(bits[t]) == cell]
            if is_query or not len(tokens):
                blocks.append(projected[own].sum(axis=0))
            elif own:
                blocks.append(projected[own].mean(axis=0))
            else:
                wanted = next(each for each in np.ndindex(*[2] * config.n_planes) if gray(each) == cell)
                apart = [sum(a != b for a, b in zip(each, wanted, strict=True)) for each in bits]
                blocks.append(projected[int(np.argmin(apart))])
    whole = np.concatenate(blocks)
    if config.final_dim is None:
        return whole
    final = np.zeros(config.final_dim)
    np.add.at(final, encoding.final_targets, encoding.final_signs * whole)
    return final


def learnt_oracle(encoding, tokens, *, is_query):
    """What a text says of each cell, (n_cells, dim), the mean of documents not yet subtracted."""
    centroids, dim = encoding.centroids.astype(float), tokens.shape[1]
    near = (tokens - encoding.token_mean) @ centroids.T
    values = np.zeros((len(centroids), dim))
    for cell in range(len(centroids) if len(tokens) else 0):
        own = near.argmax(axis=1) == cell
        if is_query:
            values[cell] = tokens[own].sum(axis=0)
        else:
            values[cell] = tokens[own].mean(axis=0) if own.any() else tokens[near[:, cell].argmax()]
    if is_query or not len(tokens) or not len(encoding.samples):
        return values
    samples = encoding.samples.astype(float)
    cells, best = ((samples - encoding.token_mean) @ centroids.T).argmax(axis=1), (samples @ tokens.T).max(axis=1)
    for cell in range(len(centroids)):
        x, wanted = samples[cells == cell], best[cells == cell]
        # Least squares with RIDGE * |w - mean|^2: rows of the identity ask for no move.
        matrix = np.concatenate([x, RIDGE**0.5 * np.eye(dim)])
        moved = np.linalg.lstsq(matrix, np.concatenate([wanted - x @ values[cell], np.zeros(dim)]), rcond=None)[0]
        values[cell] += moved
    return values


def oracle(encoding, tokens, *, is_query):
    """One text's encoding, (dim,); of a document the mean is not yet subtracted."""
    made = simhash_oracle if encoding.config.cells == "simhash" else learnt_oracle
    return made(encoding, np.asarray(tokens, float), is_query=is_query).ravel()
