"""Recipes compared with torch's own resize and with plain slicing."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from featray.model.recipes import antialiased_resize_matrix, make_recipe

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)


def test_pyfeat_recipe_equals_torch_interpolate(many_chips):
    chips = torch.from_numpy(many_chips)
    unit = chips.permute(0, 3, 1, 2).float() / 255
    resized = functional.interpolate(unit, (224, 224), mode="bilinear", antialias=True, align_corners=False)
    torch.testing.assert_close(make_recipe("pyfeat")(chips), (resized - MEAN) / STD, atol=5e-6, rtol=0)


@pytest.mark.parametrize(("side_in", "side_out"), [(256, 224), (256, 64), (64, 224), (100, 100)])
def test_resize_matrix_equals_torch_interpolate(side_in, side_out):
    image = torch.rand(1, 1, side_in, 3, generator=torch.Generator().manual_seed(0))
    expected = functional.interpolate(image, (side_out, 3), mode="bilinear", antialias=True, align_corners=False)
    found = torch.from_numpy(antialiased_resize_matrix(side_in, side_out)) @ image
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=0)


def test_center_crop_takes_the_middle(many_chips):
    chips = torch.from_numpy(many_chips)
    middle = chips[:, 16:240, 16:240].permute(0, 3, 1, 2).float() / 255
    torch.testing.assert_close(make_recipe("card-center-crop")(chips), (middle - MEAN) / STD, atol=5e-6, rtol=0)


def test_unknown_recipe():
    with pytest.raises(KeyError):
        make_recipe("guess")
