"""Images as PIL and transformers' Qwen2VLImageProcessor see them.

Writes tests/goldens/images: small PNG and JPEG files; golden.json, which has
the SHA-256 of each one's pixels and of some bicubic resizes, and sizes of
smart_resize; patches.safetensors, what the processor makes of one of them.

    pip install torch transformers pillow torchvision==0.26.0
    python tests/goldens/make_image_goldens.py
"""

import hashlib
import json
import pathlib

import numpy as np
import PIL
import safetensors.numpy
import transformers
from PIL import Image
from transformers.models.qwen2_vl import image_processing_pil_qwen2_vl as qwen

FOLDER = pathlib.Path(__file__).parent / "images"
RESIZES = ((28, 56), (140, 84), (61, 37), (7, 200))
RESIZED = ((1080, 1920), (37, 61), (28, 28), (20, 3000), (42, 70), (3000, 3001))


def pixels(height: int, width: int, channels: int) -> np.ndarray:
    """Makes noisy waves, so that JPEG and bicubic have work to do."""
    random = np.random.default_rng(channels)
    y, x, c = np.mgrid[0:height, 0:width, 0:channels]
    waves = 128 + 70 * np.sin(x / 3 + c) + 50 * np.cos(y / 5 - c)
    noise = random.integers(-30, 31, waves.shape)
    return (waves + noise).clip(0, 255).astype(np.uint8)


def write_files() -> list[pathlib.Path]:
    rgb = Image.fromarray(pixels(37, 61, 3))
    files = {
        "rgb.png": (rgb, {}),
        "rgba.png": (Image.fromarray(pixels(37, 61, 4)), {}),
        "grey.png": (Image.fromarray(pixels(37, 61, 1)[:, :, 0]), {}),
        "palette.png": (rgb.quantize(20), {"transparency": 3}),
        "bits.png": (rgb.convert("1"), {}),
        "yuv420.jpg": (rgb, {"quality": 80}),
        "yuv444.jpg": (rgb, {"quality": 95, "subsampling": 0}),
        "progressive.jpg": (rgb, {"progressive": True}),
        "grey.jpg": (Image.fromarray(pixels(37, 61, 1)[:, :, 0]), {}),
    }
    for name, (image, options) in files.items():
        image.save(FOLDER / name, **options)
    return [FOLDER / name for name in files]


def sha256(image: Image.Image) -> str:
    return hashlib.sha256(np.asarray(image).tobytes()).hexdigest()


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    golden = {"files": {}, "versions": {"pillow": PIL.__version__}}
    golden["versions"]["transformers"] = transformers.__version__
    for path in write_files():
        image = Image.open(path).convert("RGB")
        golden["files"][path.name] = {"size": image.size, "rgb": sha256(image)}
    image = Image.open(FOLDER / "rgb.png").convert("RGB")
    golden["resizes"] = [
        {"size": size, "rgb": sha256(image.resize(size, Image.BICUBIC))}
        for size in RESIZES
    ]
    golden["smart_resize"] = [
        {"size": size[::-1], "resized": qwen.smart_resize(*size)[::-1]}
        for size in RESIZED
    ]
    made = qwen.Qwen2VLImageProcessorPil()(image, return_tensors="np")
    golden["grid"] = made["image_grid_thw"][0].tolist()
    (FOLDER / "golden.json").write_text(json.dumps(golden, indent=1) + "\n")
    safetensors.numpy.save_file(
        {"patches": made["pixel_values"].astype(np.float32)},
        FOLDER / "patches.safetensors",
    )


if __name__ == "__main__":
    main()
