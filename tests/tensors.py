# SPDX-License-Identifier: Apache-2.0
"""Tensors of PyTorch that hold no plain numbers, by kind; all can be saved."""

import warnings

import torch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # some are in beta
    ROWS = torch.arange(1.0, 7.0).reshape(3, 2)
    ODD_TENSORS = {
        "sparse": ROWS.to_sparse(),
        "sparse in compressed rows": ROWS.to_sparse_csr(),
        "sparse in compressed columns": ROWS.to_sparse_csc(),
        "meta": ROWS.to("meta"),
        "float8": ROWS.to(torch.float8_e4m3fn),
        "float8 of another range": ROWS.to(torch.float8_e5m2),
        "float8 of powers of two": ROWS.to(torch.float8_e8m0fnu),
        "quantised": torch.quantize_per_tensor(ROWS, 0.1, 0, torch.qint8),
        "quantised by channel": torch.quantize_per_channel(ROWS, torch.ones(3), torch.zeros(3), 0, torch.quint8),
        "nested": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
        "complex of halves": ROWS.to(torch.complex32),
        "bits": torch.zeros(3, 2, dtype=torch.uint8).view(torch.bits8),
    }
