"""Video files, written with PyAV."""

import numpy as np

LOSSLESS = ("clip.mkv", "ffv1", "bgr0")
ENCODERS = {  # file, codec, pixels
    "h264": ("clip.mp4", "libx264", "yuv420p"),
    "mpeg4": ("clip.avi", "mpeg4", "yuv420p"),
    "vp9": ("clip.webm", "libvpx-vp9", "yuv420p"),
}


def moving(frames, width=48, height=32):
    """uint8 (frames, height, width, 3): a bright square that moves to the right over a smooth ground, which does not."""
    across, down = np.meshgrid(np.linspace(40, 90, width), np.linspace(30, 60, height))
    ground = np.stack([down, across, np.full((height, width), 50)], -1)
    made = np.repeat(ground[None], frames, 0).astype(np.uint8)
    for number in range(frames):
        left = number * (width - 8) // max(frames - 1, 1)
        made[number, 8:16, left : left + 8] = (220, 40 + 5 * number % 200, 30)
    return made


def write(folder, frames, encoder=LOSSLESS, fps=5, options=None):
    """The path of a file of these frames in `folder`."""
    import av

    name, codec, pixels = encoder
    path = folder / name
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=fps, options=options or {})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], pixels
        for frame in frames:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode())
    return path
