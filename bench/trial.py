import sys, time, torch, statistics as st
from dataclasses import replace
from torch.nn import functional as F
from services.inference.gpu.model.kernels import choose_kernels
from services.inference.gpu.model.spec import SPECS
from services.inference.gpu.model.untrained import untrained_model
from services.inference.gpu.model.vae import VaeState
from services.inference.gpu.model.fast.vae import FastVae
from services.inference.gpu.model.fast.dit import FastDit
from services.inference.gpu.model.fast.frame_kernels import TritonFrameOps
from services.inference.gpu.model.fast.token_kernels import TritonTokenOps
torch.backends.cudnn.allow_tf32 = False
dev = torch.device("cuda"); spec = SPECS["seedvr2-3b"]
bf = torch.bfloat16
def timed(f, n=5, warm=2):
    for _ in range(warm): f()
    ts=[]
    for _ in range(n):
        a,b=torch.cuda.Event(enable_timing=True),torch.cuda.Event(enable_timing=True)
        a.record(); f(); b.record(); b.synchronize(); ts.append(a.elapsed_time(b))
    return st.median(ts)
def rel(a,b): return float((a.double()-b.double()).norm()/b.double().norm())
def profile(f, rows=14):
    from torch.profiler import profile as P, ProfilerActivity as A
    f(); torch.cuda.synchronize()
    with P(activities=[A.CUDA]) as p:
        f(); torch.cuda.synchronize()
    ev=sorted(p.key_averages(), key=lambda e:-e.self_device_time_total)
    tot=sum(e.self_device_time_total for e in ev)
    print(f"  kernels {tot/1000:.2f} ms")
    for e in ev[:rows]: print(f"   {e.self_device_time_total/1000:8.2f} ms x{e.count:4d} {e.key[:100]}")
def model(dtype):
    return untrained_model(spec, choose_kernels(dev, dtype), dev, dtype)
def step(name): print(f"[{time.time()-T0:6.1f}] == {name}", flush=True)
T0=time.time()
def sections(want):
    m = model(bf)
    with torch.inference_mode():
        t=time.time(); fv = FastVae(m.vae, TritonFrameOps()); torch.cuda.synchronize(); print("prepare vae", time.time()-t, "GB", torch.cuda.memory_allocated()/1e9)
        fd = FastDit(m.dit, TritonTokenOps(), choose_kernels(dev,bf).attend)
    if "check" in want:
        step("accuracy vs fp32")
        with torch.inference_mode():
            m32 = untrained_model(spec, choose_kernels(dev, torch.float32), dev, torch.float32)
            # the same values: bf16 ones upcast
            for a,b in ((m32.dit,m.dit),(m32.vae,m.vae)):
                for p,q in zip(a.parameters(), b.parameters(), strict=True): p.data.copy_(q)
            x = torch.rand(9,3,256,448,device=dev)*2-1
            f32=FastVae(m32.vae, TritonFrameOps())
            def run(step, x, cuts): 
                s=VaeState(); return torch.cat([step(c,s) for c in x.split(cuts)])
            ref=run(m32.vae.moments,x,[1,4,4])
            print(" encode plain bf16", rel(run(m.vae.moments,x.to(bf),[1,4,4]),ref), "fast bf16", rel(run(fv.moments,x.to(bf),[1,4,4]),ref), "fast fp32", rel(run(f32.moments,x,[1,4,4]),ref), flush=True)
            z=torch.randn(4,16,32,56,device=dev)
            zz=z.permute(0,2,3,1)*spec.vae.scaling_factor
            ref=run(m32.vae.decode,zz,[1,1,2])
            print(" decode plain bf16", rel(run(m.vae.decode,zz.to(bf),[1,1,2]),ref), "fast bf16", rel(run(fv.decode,z.to(bf),[1,1,2]),ref), "fast fp32", rel(run(f32.decode,z,[1,1,2]),ref), flush=True)
            x=torch.randn(3,60,106,33,device=dev); t=torch.tensor(1000.,device=dev)
            x=x.to(bf).float(); text=m.text
            ref=m32.dit(x,text.float(),t)
            def fast(d,f,x,text):
                return f(x,text,t,d._layouts((3,30,53),58,dev),lambda:None)
            print(" dit plain bf16", rel(m.dit(x.to(bf),text,t),ref), "fast bf16", rel(fast(m.dit,fd,x.to(bf),text),ref), "fast fp32", rel(fast(m32.dit,FastDit(m32.dit,TritonTokenOps(),choose_kernels(dev,torch.float32).attend),x,text.float()),ref), flush=True)
            del m32,f32,ref
        torch.cuda.empty_cache()
    H,W=720,1280
    if "vae" in want:
        with torch.inference_mode():
          for bench in (False, True):
            torch.backends.cudnn.benchmark=bench
            step(f"vae 720p benchmark={bench}")
            x=torch.rand(4,3,H,W,device=dev).to(bf)*2-1; z=torch.randn(1,16,H//8,W//8,device=dev).to(bf)
            for name,f,inp in (("encode",fv.moments,x),("decode",fv.decode,z)):
                torch.cuda.empty_cache(); torch.cuda.reset_peak_memory_stats()
                s=VaeState(); base=torch.cuda.memory_allocated()
                first=timed(lambda: f(inp[:1],VaeState()),3,1)
                f(inp[:1],s); f(inp,s)
                steady=timed(lambda: f(inp,s),5,1)
                print(f" {name} first {first:.1f} ms steady {steady:.1f} ms = {steady/4:.2f}/frame; peak {torch.cuda.max_memory_allocated()/1e9:.2f} state {(torch.cuda.memory_allocated()-base)/1e9:.2f} reserved {torch.cuda.memory_reserved()/1e9:.1f}",flush=True)
                if not bench: profile(lambda: f(inp,s),22)
                del s
            torch.backends.cudnn.benchmark=False
    if "plainvae" in want:
        with torch.inference_mode():
            step("plain vae 720p")
            x=torch.rand(4,3,H,W,device=dev).to(bf)*2-1; z=torch.randn(1,H//8,W//8,16,device=dev).to(bf)
            for name,f,inp in (("encode",m.vae.moments,x),("decode",m.vae.decode,z)):
                torch.cuda.empty_cache(); torch.cuda.reset_peak_memory_stats()
                s=VaeState(); f(inp[:1],s)
                print(f" {name} steady {timed(lambda: f(inp,s),2,1):.1f} ms; peak {torch.cuda.max_memory_allocated()/1e9:.2f}",flush=True); del s
    if "dit" in want:
        with torch.inference_mode():
            for L in (2,6):
                step(f"dit 720p {L} latents")
                x=torch.randn(L,90,160,33,device=dev).to(bf); t=torch.tensor(1000.,device=dev)
                lay=m.dit._layouts((L,45,80),58,dev)
                g=lambda: fd(x,m.text,t,lay,lambda:None)
                print(f" fast {timed(g):.1f} ms, plain {timed(lambda: m.dit(x,m.text,t),3,1):.1f} ms", flush=True)
                a=time.perf_counter(); g(); print(f" host {1e3*(time.perf_counter()-a):.1f} ms"); torch.cuda.synchronize()
            profile(g,14)
    if "conv" in want:
        step("conv rates")
        def rate(name,fn,flop):
            ms=timed(fn,5,2); print(f"  {name}: {ms:.3f} ms {flop/ms/1e9:.0f} TFLOP/s",flush=True)
        for (ci,co,T,h,w,k) in ((128,128,4,720,1280,3),(256,128,4,720,1280,3),(512,1024,2,180,320,2),(256,256,4,360,640,2),(512,512,2,180,320,3),(512,512,1,90,160,3),(128,8,4,720,1280,3),(8,128,4,720,1280,3)):
            kt=3 if ci!=512 or k==3 else 2
            x=torch.randn(T+kt-1,h,w,ci,device=dev,dtype=bf); wt=torch.randn(co,ci,kt,k,k,device=dev,dtype=bf).contiguous(memory_format=torch.channels_last_3d)
            f=2*ci*co*T*h*w*kt*k*k
            for b in (False,True):
                torch.backends.cudnn.benchmark=b
                rate(f"{ci}>{co} {kt}x{k}x{k} {T}x{h}x{w} bench={b}", lambda: F.conv3d(x.permute(3,0,1,2)[None],wt,padding=(0,1,1)), f)
            torch.backends.cudnn.benchmark=False
    step("done")
sections(sys.argv[1].split(","))
