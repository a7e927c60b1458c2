"""Play an exported walker with MuJoCo, ONNX Runtime and NumPy alone; print its return.

rllib-ezm export CHECKPOINT --out policy
python -c "import mujoco; from dm_control.suite import walker; physics = \
walker.Physics.from_xml_string(*walker.get_model_and_assets()); \
mujoco.mj_saveLastXML('walker.xml', physics.model.ptr)"
python examples/play_onnx.py policy/dmc_walker-walk.onnx walker.xml --episodes 10
"""

import argparse
import json

import mujoco
import numpy as np
import onnxruntime

SPEEDS = {"dmc:walker-stand": 0.0, "dmc:walker-walk": 1.0, "dmc:walker-run": 8.0}
parser = argparse.ArgumentParser()
parser.add_argument("policy")
parser.add_argument("model")
parser.add_argument("--episodes", type=int, default=10)
args = parser.parse_args()

session = onnxruntime.InferenceSession(args.policy)
about = json.loads(session.get_modelmeta().custom_metadata_map["rllib_ezm"])
model = mujoco.MjModel.from_xml_path(args.model)
data, rng, returns = mujoco.MjData(model), np.random.default_rng(0), []
torso, speed = model.body("torso").id, SPEEDS[about["task"]]
for episode in range(args.episodes):
    mujoco.mj_resetData(model, data)
    for joint in range(model.njnt):  # limited joints in their ranges, the torso in any direction
        if model.jnt_type[joint] == mujoco.mjtJoint.mjJNT_HINGE:
            limits = model.jnt_range[joint] if model.jnt_limited[joint] else (-np.pi, np.pi)
            data.qpos[model.jnt_qposadr[joint]] = rng.uniform(*limits)
    mujoco.mj_forward(model, data)
    returns.append(0.0)
    for _ in range(1000 // about["action_repeat"]):
        limbs, height = data.xmat[1:, [0, 2]].ravel(), data.xpos[torso, 2]
        observation = np.hstack([limbs, height, data.qvel]).astype(np.float32)[None]
        inputs = {"observation": observation}
        for name, shape in about["random_inputs"].items():
            heads = [rng.permutation(about["num_value_heads"])[:2] for _ in range(shape[0])]
            noise = heads if name == "heads" else rng.standard_normal(shape)
            inputs[name] = np.array(noise, np.int64 if name == "heads" else np.float32)
        data.ctrl[:] = session.run(None, inputs)[0][0]
        for _ in range(about["action_repeat"]):
            mujoco.mj_step(model, data, nstep=10)
            mujoco.mj_step1(model, data)  # what is observed is that of the new state
            low = max(0.0, 1.2 - data.xpos[torso, 2]) / 0.6
            upright = (1.0 + data.xmat[torso, 8]) / 2.0
            stand = (3.0 * 0.1 ** (low * low) + upright) / 4.0
            pace = data.sensor("torso_subtreelinvel").data[0] / (speed or 1.0)
            move = np.clip(pace, 0.0, 1.0) if speed else 1.0
            returns[-1] += stand * (5.0 * move + 1.0) / 6.0
    print(f"episode {episode}: {returns[-1]:.1f}", flush=True)
deviation = np.std(returns, ddof=1) if args.episodes > 1 else float("nan")
print(f"{about['task']}: return {np.mean(returns):.1f} +- {deviation / args.episodes**0.5:.1f}")
